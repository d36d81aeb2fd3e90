package netlink

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Request begins a message of the given type and flags.
func (s *Socket) Request(message, flags int) *nl.NetlinkRequest {
	return nl.NewNetlinkRequest(message, flags)
}

// Acknowledge sends the request and waits until the kernel has done it.
func (s *Socket) Acknowledge(r *nl.NetlinkRequest) error {
	r.Flags |= unix.NLM_F_ACK
	_, err := s.Execute(r)
	return err
}

// Dump sends a dump request and returns the payloads of the answer's messages. A
// dump that the kernel says was interrupted by a change is taken again; it is never
// mistaken for a complete one.
func (s *Socket) Dump(message int, data ...nl.NetlinkRequestData) (answer [][]byte, err error) {
	for range 10 {
		r := s.Request(message, unix.NLM_F_DUMP)
		for _, d := range data {
			r.AddData(d)
		}
		if answer, err = s.Execute(r); !errors.Is(err, nl.ErrDumpInterrupted) {
			return answer, err
		}
	}
	return nil, err
}

// Execute sends the request and returns the payloads of the answer's messages:
// one, or those of a dump up to its end. Where an acknowledgement is asked for,
// it ends with that, and holds what the kernel tells before: an echo or nothing.
func (s *Socket) Execute(r *nl.NetlinkRequest) (answer [][]byte, err error) {
	s.Sequence++
	r.Seq = s.Sequence
	if err := s.Send(r.Serialize()); err != nil {
		return nil, fmt.Errorf("sending netlink message: %w", err)
	}
	var interrupted error
	for done := false; !done && err == nil; {
		err = s.Receive(0, func(h *unix.NlMsghdr, payload []byte) error {
			if h.Seq != s.Sequence {
				return nil // the late answer to an earlier request
			}
			if h.Flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = nl.ErrDumpInterrupted
			}
			switch h.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				_, status := Status(h, payload)
				return errors.Join(interrupted, status)
			}
			answer = append(answer, bytes.Clone(payload))
			done = h.Flags&unix.NLM_F_MULTI == 0 && r.Flags&unix.NLM_F_ACK == 0
			return nil
		})
	}
	return answer, err
}

// batchBytes bounds how much is sent to the kernel at once. Each message is
// acknowledged, and the acknowledgements wait in the socket's buffer.
const batchBytes = 8 << 10

// AcknowledgeAll sends many requests and returns what the kernel says to each,
// nil where it is done. Several requests travel in one system call: for
// thousands of routes that takes half the time.
func (s *Socket) AcknowledgeAll(requests []*nl.NetlinkRequest) []error {
	results := make([]error, len(requests))
	for done := 0; done < len(requests); {
		first := s.Sequence + 1
		var batch []byte
		end := done
		for ; end < len(requests) && len(batch) < batchBytes; end++ {
			s.Sequence++
			r := requests[end]
			r.Seq = s.Sequence
			r.Flags |= unix.NLM_F_ACK
			raw := r.Serialize()
			batch = append(batch, raw...)
			batch = append(batch, make([]byte, Align(len(raw))-len(raw))...)
		}
		if err := s.exchange(batch, first, results[done:end]); err != nil {
			for i := done; i < len(requests); i++ {
				results[i] = err
			}
			return results
		}
		done = end
	}
	return results
}

// exchange sends a batch whose first message has the given sequence number, and
// fills in the acknowledgements.
func (s *Socket) exchange(batch []byte, first uint32, results []error) error {
	if err := s.Send(batch); err != nil {
		return fmt.Errorf("sending netlink messages: %w", err)
	}
	for waiting := len(results); waiting > 0; {
		if err := s.Receive(0, func(h *unix.NlMsghdr, payload []byte) error {
			// In unsigned arithmetic, what comes before the first is beyond all.
			if index := h.Seq - first; h.Type == unix.NLMSG_ERROR && index < uint32(len(results)) {
				_, results[index] = Status(h, payload)
				waiting--
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
