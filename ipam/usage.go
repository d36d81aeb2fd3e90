package ipam

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// Usage is how much of a range set is in use.
type Usage struct {
	// Total is the number of addresses that can be handed out, or the largest
	// uint64 if there are more.
	Total uint64
	// Used is how many of them are reserved.
	Used uint64
	// Cooling is how many of them were released and wait for those that were
	// released before them.
	Cooling uint64
}

// Usage counts the reservations in a set. It takes time in proportion to the
// number of reservations. It fails with *RangeError, ErrLocked, or an error of
// the file system.
func (s *Store) Usage(ctx context.Context, set RangeSet) (Usage, error) {
	if err := (Pool{set}).Validate(); err != nil {
		return Usage{}, err
	}
	u := Usage{Total: set.allocatable()}
	err := s.do(ctx, func(x *session) error {
		u.Used, u.Cooling = 0, 0
		files, err := x.list(".")
		if err != nil {
			return err
		}
		for _, f := range files {
			if addr, ok := parseName(f.Name()); ok && set.serves(addr) {
				u.Used++
			}
		}
		files, err = x.list(releasedDir)
		if err != nil {
			return err
		}
		for _, f := range files {
			if addr, ok := parseName(f.Name()); ok && set.serves(addr) {
				u.Cooling++
			}
		}
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("counting reservations: %w", err)
	}
	return u, nil
}

// HasFree returns nil if every set of the pool has an address to hand out. It
// fails with *ExhaustedError if one has not, or as Allocate does. Its cost does
// not depend on the number of reservations, but where it has to prove that a
// set is exhausted, once.
func (s *Store) HasFree(ctx context.Context, p Pool) error {
	if err := p.Validate(); err != nil {
		return err
	}
	return s.do(ctx, func(x *session) error {
		for {
			before := x.st.clone()
			x.asked, x.used = 0, nil
			err := x.peek(p)
			x.st = x.keep(before)
			if !errors.Is(err, errNothingFree) || x.desperate {
				return err
			}
			if err := x.despair(); err != nil {
				return err
			}
		}
	})
}

// peek does what choose does, for its error.
func (x *session) peek(p Pool) error {
	for i, set := range p {
		sl := x.st.slot(keyOf(set))
		if sl == nil && len(x.st.slots) == maxSlots {
			// Looking is no reason to forget another set.
			sl = &slot{key: keyOf(set), fresh: math.MaxUint64, unborn: true}
		} else if sl == nil {
			var err error
			if sl, err = x.slotFor(uint32(i), set); err != nil {
				return err
			}
		}
		if _, err := x.next(sl, set); err != nil {
			return err
		}
	}
	return nil
}
