package kernel

import (
	"fmt"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// batchBytes bounds how much is sent to the kernel at once. Each message is
// acknowledged, and the acknowledgements wait in the socket's buffer.
const batchBytes = 8 << 10

// acknowledgeAll sends many requests and returns what the kernel says to each,
// nil where it is done. Several requests travel in one system call: for
// thousands of routes that takes half the time.
func (s *socket) acknowledgeAll(requests []*nl.NetlinkRequest) []error {
	results := make([]error, len(requests))
	for done := 0; done < len(requests); {
		first := s.sequence + 1
		var batch []byte
		end := done
		for ; end < len(requests) && len(batch) < batchBytes; end++ {
			s.sequence++
			r := requests[end]
			r.Seq = s.sequence
			r.Flags |= unix.NLM_F_ACK
			raw := r.Serialize()
			batch = append(batch, raw...)
			batch = append(batch, make([]byte, align(len(raw))-len(raw))...)
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
func (s *socket) exchange(batch []byte, first uint32, results []error) error {
	if err := unix.Sendto(s.fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending netlink messages: %w", err)
	}
	for waiting := len(results); waiting > 0; {
		messages, err := s.receive()
		if err != nil {
			return err
		}
		for len(messages) >= unix.SizeofNlMsghdr {
			header := (*unix.NlMsghdr)(unsafe.Pointer(&messages[0]))
			length := int(header.Len)
			if length < unix.SizeofNlMsghdr || length > len(messages) {
				return fmt.Errorf("kernel sent a netlink message of %d bytes in %d", length, len(messages))
			}
			// In unsigned arithmetic, what comes before the first is beyond all.
			if index := header.Seq - first; header.Type == unix.NLMSG_ERROR && index < uint32(len(results)) {
				results[index] = statusOf(messages[unix.SizeofNlMsghdr:length], header.Flags)
				waiting--
			}
			messages = messages[min(align(length), len(messages)):]
		}
	}
	return nil
}
