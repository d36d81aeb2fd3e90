package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Reservation is what one owner holds.
type Reservation struct {
	// Owner has no interface name if an old version of host-local made the
	// record.
	Owner     Owner
	Addresses []netip.Addr
	// Sandbox is that of the request; zero if another program made the record.
	Sandbox Sandbox
	// Since is when the addresses were reserved.
	Since time.Time
}

// Reservations returns all reservations, in no order. Those that are made or
// released meanwhile may be among them or not. It fails with ErrLocked or an
// error of the file system.
func (s *Store) Reservations(ctx context.Context) ([]Reservation, error) {
	entries, err := s.entries(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing reservations: %w", err)
	}
	reservations := make([]Reservation, len(entries))
	for i := range entries {
		reservations[i] = entries[i].reservation()
	}
	return reservations, nil
}

// Collect reads every record, heals what is torn, and releases the
// reservations that stale says so of. It returns those. stale is called
// without the lock; what changes in between is not released. It fails with
// ErrLocked or an error of the file system, and returns what it released
// until then.
func (s *Store) Collect(ctx context.Context, stale func(Reservation) bool) ([]Reservation, error) {
	err := s.do(ctx, func(x *session) error {
		if x.rebuilt {
			return nil
		}
		return x.rebuild(false)
	})
	if err != nil {
		return nil, fmt.Errorf("reading reservations: %w", err)
	}
	return s.collect(ctx, stale)
}

// collect is Collect without reading every record.
func (s *Store) collect(ctx context.Context, stale func(Reservation) bool) ([]Reservation, error) {
	entries, err := s.entries(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing reservations: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e entry) bool { return !stale(e.reservation()) })
	var released []Reservation
	// Others get the lock now and then.
	for batch := range slices.Chunk(entries, 128) {
		err := s.do(ctx, func(x *session) error {
			for _, e := range batch {
				now, err := x.lookup(e.owner)
				if err != nil {
					return err
				}
				if now == nil {
					continue
				}
				if err := x.date(now); err != nil {
					return err
				}
				if !now.same(&e) {
					continue
				}
				freed, err := x.drop(now)
				if len(freed) > 0 {
					r := now.reservation()
					r.Addresses = freed
					released = append(released, r)
				}
				if err != nil {
					return fmt.Errorf("releasing the addresses of %s: %w", e.owner, err)
				}
			}
			return nil
		})
		if err != nil {
			return released, err
		}
	}
	return released, nil
}

// entries reads all entries of the index. It holds the lock for no longer than
// it takes to have the index in order: each entry is read as a whole, and what
// comes and goes meanwhile is seen before or after.
func (s *Store) entries(ctx context.Context) ([]entry, error) {
	var d *disk
	err := s.do(ctx, func(x *session) (err error) {
		d, err = x.again()
		return err
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(d.dir)
	files, err := d.list(ownersDir)
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		name := ownersDir + "/" + f.Name()
		e, ok := d.entry(name)
		if !ok || d.date(&e) != nil {
			continue
		}
		all = append(all, e)
	}
	return all, nil
}
