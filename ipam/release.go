package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Release frees all addresses of an owner and returns them. That there is
// nothing to free is no error. An owner without any gets those of the
// container that were recorded without an interface name, by an old version of
// host-local, freed instead. It fails with ErrLocked or an error of the file
// system; repeating it then is safe.
func (s *Store) Release(ctx context.Context, o Owner) ([]netip.Addr, error) {
	o, err := o.canonical()
	if err != nil {
		return nil, fmt.Errorf("releasing addresses: %w", err)
	}
	var freed []netip.Addr
	err = s.do(ctx, func(x *session) error {
		e, err := x.find(o)
		if e == nil || err != nil {
			return err
		}
		addrs, err := x.drop(e)
		freed = append(freed, addrs...)
		return err
	})
	if err != nil {
		return freed, fmt.Errorf("releasing the addresses of %s: %w", o, err)
	}
	return freed, nil
}

// Lookup returns the addresses that an owner holds, or none. As in Release,
// records without an interface name count for an owner that has no other. It
// fails with ErrLocked or an error of the file system.
func (s *Store) Lookup(ctx context.Context, o Owner) ([]netip.Addr, error) {
	r, err := s.Find(ctx, o)
	return r.Addresses, err
}

// Find is Lookup for the whole reservation. If there is none, the one that it
// returns has no addresses.
func (s *Store) Find(ctx context.Context, o Owner) (Reservation, error) {
	o, err := o.canonical()
	if err != nil {
		return Reservation{}, fmt.Errorf("looking up addresses: %w", err)
	}
	var found Reservation
	err = s.do(ctx, func(x *session) error {
		found = Reservation{}
		e, err := x.find(o)
		if e == nil || err != nil {
			return err
		}
		held, err := x.verify(e)
		if len(held) == 0 || err != nil {
			return err
		}
		if err := x.date(e); err != nil {
			return err
		}
		found = e.reservation()
		found.Addresses = held
		return nil
	})
	if err != nil {
		return Reservation{}, fmt.Errorf("looking up the addresses of %s: %w", o, err)
	}
	return found, nil
}

// drop removes the records of an entry, remembers the addresses as released,
// and removes the entry last. What it could free it returns, also with an
// error.
func (x *session) drop(e *entry) (freed []netip.Addr, err error) {
	if err := x.mark(); err != nil {
		return nil, err
	}
	defer func() { x.broken = x.broken || err != nil }()
	var errs []error
	for _, h := range e.held {
		name := h.addr.String()
		o, ok, exists, err := x.holder(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if exists && !ok {
			x.broken = true // have the next session read all records and heal this one
			continue
		}
		if exists && !e.has(o) {
			continue // it is somebody else's by now
		}
		if exists {
			if err := x.remove(name); err != nil {
				errs = append(errs, err)
				continue
			}
			freed = append(freed, h.addr)
		}
		if err := x.pushLeniently(h.set, h.addr); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return freed, errors.Join(errs...)
	}
	if err := x.remove(entryName(e.owner)); err != nil {
		return freed, err
	}
	if e.owner.Interface == "" && x.st.legacy > 0 {
		x.st.legacy--
	}
	return freed, nil
}
