package policy

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/conntrack"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// flow is a connection as the forwarding node sees its packets, after translation.
type flow struct {
	from, to netip.AddrPort
	protocol Protocol
}

// ended are the flows that a policy has put an end to, so that they begin nowhere again:
// once the kernel has forgotten one, its next packet may as well come from the end that
// answered, which may be allowed to begin connections. They are elements of a set of
// each family, two for each flow.
type ended struct {
	since   map[flow]time.Time
	keys    [len(families)]map[string]struct{}
	changes [len(families)]nft.Delta
}

// endedFor is how long a flow is kept in mind. Nobody sends for longer without an answer.
const endedFor = 3 * time.Hour

// mostEnded bounds how many are kept in mind.
const mostEnded = 32768

func newEnded() *ended {
	e := &ended{since: map[flow]time.Time{}}
	for _, f := range families {
		e.keys[f] = map[string]struct{}{}
		e.changes[f] = nft.Delta{Table: tableID, Set: "ended" + f.suffix()}
	}
	return e
}

// endedOf are the elements of a family's set.
type endedOf map[string]struct{}

// Len implements [nft.Elements].
func (e endedOf) Len() int { return len(e) }

// All implements [nft.Elements].
func (e endedOf) All(yield func(nft.Element) bool) {
	for key := range e {
		if !yield(nft.Element{Key: key}) {
			return
		}
	}
}

// Find implements [nft.Elements].
func (e endedOf) Find(key string) (nft.Element, bool) {
	_, is := e[key]
	return nft.Element{Key: key}, is
}

func (e *ended) elements() (all [len(families)]nft.Elements) {
	for _, f := range families {
		all[f] = endedOf(e.keys[f])
	}
	return all
}

// take returns what has changed since the last call.
func (e *ended) take() (all []nft.Delta) {
	for _, f := range families {
		if c := &e.changes[f]; len(c.Added)+len(c.Deleted) > 0 {
			all = append(all, *c)
			c.Added, c.Deleted = nil, nil
		}
	}
	return all
}

// ways are the keys of a flow's packets in both directions.
func (f flow) ways() [2]string {
	key := func(from, to netip.AddrPort) string {
		return string(nft.Key(nil).Address(from.Addr()).Port(from.Port()).Address(to.Addr()).Port(to.Port()).Protocol(uint8(f.protocol)))
	}
	return [2]string{key(f.from, f.to), key(f.to, f.from)}
}

func (e *ended) add(f flow, now time.Time) {
	if _, known := e.since[f]; known || len(e.since) >= mostEnded {
		return
	}
	e.since[f] = now
	fam := familyOf(f.from.Addr())
	for _, key := range f.ways() {
		if _, there := e.keys[fam][key]; !there {
			e.keys[fam][key] = struct{}{}
			e.changes[fam].Added = append(e.changes[fam].Added, nft.Element{Key: key})
		}
	}
}

// remove forgets flows. It has to come before those that are added.
func (e *ended) remove(over func(flow, time.Time) bool) {
	for f, since := range e.since {
		if !over(f, since) {
			continue
		}
		delete(e.since, f)
		fam := familyOf(f.from.Addr())
		for _, key := range f.ways() {
			if _, there := e.keys[fam][key]; there {
				delete(e.keys[fam], key)
				e.changes[fam].Deleted = append(e.changes[fam].Deleted, nft.Element{Key: key})
			}
		}
	}
}

// tracked are the protocols whose flows are looked at.
var tracked = []Protocol{TCP, UDP, SCTP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6}

// forgetter is [conntrack.Forget].
type forgetter func(protocol uint8, stale func(conntrack.Flow) bool) (int, error)

// seen is a flow as connection tracking has it: what its packets are like where they
// are forwarded.
func seen(f conntrack.Flow) flow {
	return flow{netip.AddrPortFrom(f.Source.Addr().Unmap(), f.Source.Port()), netip.AddrPortFrom(f.Answering.Addr().Unmap(), f.Answering.Port()), Protocol(f.Protocol)}
}

// hasPorts reports whether the protocol has ports.
func (p Protocol) hasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// each calls f with every tracked flow.
func (c *Controller) each(f func(flow)) error {
	var errs []error
	for _, p := range tracked {
		_, err := c.forget(uint8(p), func(one conntrack.Flow) bool {
			if one.Source.IsValid() && one.Answering.IsValid() {
				f(seen(one))
			}
			return false
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// end puts an end to the flows that are no longer allowed: they are refused from now on,
// and then forgotten. All others go on.
func (c *Controller) end(sync func() error) error {
	now := time.Now()
	if len(c.plan.leads) == 0 {
		c.ended.remove(func(flow, time.Time) bool { return true })
		return sync()
	}
	mine, err := own()
	if err != nil {
		return err
	}
	refused := func(f flow) bool {
		if mine[f.from.Addr()] || mine[f.to.Addr()] {
			return false
		}
		port := f.to.Port()
		if !f.protocol.hasPorts() {
			port = 0
		}
		return c.plan.refuses(c.world, f.from.Addr(), f.to.Addr(), f.protocol, port)
	}
	c.ended.remove(func(f flow, since time.Time) bool { return now.Sub(since) > endedFor || !refused(f) })
	stale := map[flow]bool{}
	err = c.each(func(f flow) {
		if refused(f) {
			stale[f] = true
			if f.protocol.hasPorts() {
				c.ended.add(f, now)
			}
		}
	})
	if err := errors.Join(err, sync()); err != nil {
		return err
	}
	for _, p := range tracked {
		if err := c.forgetAll(p, stale); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) forgetAll(p Protocol, stale map[flow]bool) error {
	any := false
	for f := range stale {
		any = any || f.protocol == p
	}
	if !any {
		return nil
	}
	n, err := c.forget(uint8(p), func(f conntrack.Flow) bool {
		return f.Source.IsValid() && f.Answering.IsValid() && stale[seen(f)]
	})
	c.endedFlows.Add(uint64(n))
	if n > 0 {
		c.log.Info("connections that are no longer allowed were ended", "protocol", p.String(), "connections", n)
	}
	return err
}
