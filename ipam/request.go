package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Request asks for one address out of each set of a pool.
type Request struct {
	// Owner is who will hold the addresses; the interface is not empty.
	Owner Owner
	// Sandbox is where they will be used. It is kept with the reservation.
	Sandbox Sandbox
	Pool    Pool
	// Requested are addresses to use instead of any. Each is served by the
	// first set that contains it and serves no other. IPv4-mapped addresses
	// and repetitions do no harm.
	Requested []netip.Addr
	// Gone says whether it is proven that a reservation is of a pod that does
	// not exist any more. Before a set is said to be exhausted, such
	// reservations are released. It is called without the lock, for every
	// reservation that holds an address of the set. Nil proves nothing.
	Gone func(Reservation) bool
}

// Allocation is an address that was handed out.
type Allocation struct {
	// Address has the length of its subnet.
	Address netip.Prefix
	// Gateway is that of the range, or the zero Addr.
	Gateway netip.Addr
}

// check validates a request, makes its owner canonical, and returns which
// address is requested of which set, or the zero Addr.
func (r *Request) check() ([]netip.Addr, error) {
	var err error
	if r.Owner, err = r.Owner.canonical(); err != nil {
		return nil, fmt.Errorf("reserving an address: %w", err)
	}
	if r.Owner.Interface == "" {
		return nil, errors.New("reserving an address: the interface name is empty")
	}
	if err := r.Sandbox.validate(); err != nil {
		return nil, fmt.Errorf("reserving an address: %w", err)
	}
	if err := r.Pool.Validate(); err != nil {
		return nil, err
	}
	if len(r.Pool) > maxPool {
		return nil, fmt.Errorf("reserving an address: the pool has %d range sets, more than %d", len(r.Pool), maxPool)
	}
	// A link of 4,095 bytes has to hold the entry.
	const longest = len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/0123456789abcdef,")
	if n := len(r.Owner.ContainerID) + len(r.Owner.Interface) + len(r.Sandbox.Path) + 64 + len(r.Pool)*longest; n > maxLink {
		return nil, fmt.Errorf("reserving an address: container id, interface name, sandbox path and %d addresses are too long together (%d bytes of %d)",
			len(r.Pool), n, maxLink)
	}

	wanted := make([]netip.Addr, len(r.Pool))
	var seen []netip.Addr
	for _, given := range r.Requested {
		addr := given.Unmap()
		if slices.Contains(seen, addr) {
			continue
		}
		seen = append(seen, addr)
		if !addr.IsValid() || addr.Zone() != "" {
			return nil, &OutsideError{given, "is not an address"}
		}
		served, inside := false, false
		for i, set := range r.Pool {
			in := set.RangeFor(addr)
			if in == nil {
				continue
			}
			if addr == in.Gateway {
				return nil, &OutsideError{addr, "is the gateway of subnet " + in.Subnet.String()}
			}
			inside = true
			if !wanted[i].IsValid() {
				wanted[i], served = addr, true
				break
			}
		}
		switch {
		case !inside:
			return nil, &OutsideError{addr, "is outside of all ranges: " + r.Pool.String()}
		case !served:
			return nil, &OutsideError{addr, "is one too many: every range set gives one address, and that of this one is to be another requested one"}
		}
	}
	return wanted, nil
}
