package fastpath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Flow is one that is remembered, as it is from its one end, which is that of the lesser
// address.
type Flow struct {
	Protocol string         `json:"protocol"` // tcp, udp
	From     netip.AddrPort `json:"from"`
	To       netip.AddrPort `json:"to"`
	There    Way            `json:"there"`
	Back     Way            `json:"back"`
	Since    time.Time      `json:"since"`
	// Active says that both directions go by the fast path; otherwise a direction was not
	// seen yet, or not for long, or all was to be decided anew.
	Active bool `json:"active"`
}

// Bytes are those of both directions.
func (f Flow) Bytes() uint64 { return f.There.Bytes + f.Back.Bytes }

// Way is one direction of a flow. Packets and bytes are those that took the fast path; they
// are counted without locks, and may be a few less than there were.
type Way struct {
	In      int    `json:"in"`  // interface
	Out     int    `json:"out"` // interface
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counts are of all flows since the programs were loaded.
type Counts struct {
	Hits    uint64 `json:"hits"`    // packets that went by the fast path
	Misses  uint64 `json:"misses"`  // that could have been of a flow that is remembered, and were not
	Learned uint64 `json:"learned"` // directions
	// Of the hits, those that the programs wrapped for the overlay, or unwrapped.
	Wrapped   uint64 `json:"wrapped"`
	Unwrapped uint64 `json:"unwrapped"`
	Raised    uint64 `json:"raised"` // times that all was to be decided anew
}

// Counts returns what the programs have counted.
func (k *Keeper) Counts() (sum Counts, err error) {
	if k.programs == nil {
		return sum, nil
	}
	var each []programCounts
	if err := k.programs.Counted.Lookup(uint32(0), &each); err != nil {
		return sum, fmt.Errorf("reading what was counted: %w", err)
	}
	for _, c := range each {
		sum.Hits += c.Hits
		sum.Misses += c.Misses
		sum.Learned += c.Learned
		sum.Wrapped += c.Wrapped
		sum.Unwrapped += c.Unwrapped
	}
	k.mu.Lock()
	sum.Raised = k.raised
	k.mu.Unlock()
	return sum, nil
}

// inForce reports whether a direction is, at a time of the programs' clock.
func (f *programFlow) inForce(generation uint32, at time.Duration) bool {
	in := func(w programWay) bool { return w.Generation == generation && time.Duration(w.Expires) > at }
	return f.Closing == 0 && (in(f.FromLow) || in(f.FromHigh))
}

func protocolName(number uint8) string {
	const tcp = 6
	if number == tcp {
		return "tcp"
	}
	return "udp"
}

// addressOf reads an end of a flow. The programs have them as packets do.
func addressOf(words [2]uint64, port uint16, family uint8) netip.AddrPort {
	raw := binary.NativeEndian.AppendUint64(nil, words[0])
	raw = binary.NativeEndian.AppendUint64(raw, words[1])
	const v4, v4Bytes = 4, 4
	if family == v4 {
		raw = raw[:v4Bytes]
	}
	address, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(address, binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, port)))
}

func wayOf(w programWay) Way {
	const peer = 1 << 31
	return Way{In: int(w.In), Out: int(w.Out &^ peer), Packets: w.Packets, Bytes: w.Bytes}
}
