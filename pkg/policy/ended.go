package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

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
	flows   map[flow]endedFlow
	keys    [len(families)]keySet
	changes [len(families)]nft.Delta
	// left says that an earlier process may have left some, which are adopted when the
	// table is read.
	left bool
}

// endedFlow is what is known of a flow that was ended.
type endedFlow struct {
	since time.Time
	// found says that an earlier process has left it in the kernel: which end began it is
	// not known.
	found bool
}

// endedFor is how long a flow is kept in mind. Nobody sends for longer without an answer.
const endedFor = 3 * time.Hour

// mostEnded bounds how many are kept in mind.
const mostEnded = 32768

func newEnded() *ended {
	e := &ended{flows: map[flow]endedFlow{}}
	for _, f := range families {
		e.keys[f] = keySet{}
		e.changes[f] = nft.Delta{Table: tableID, Set: endedSet(f, nil).Name}
	}
	return e
}

// endedOf are the elements of a family's set. It is an [nft.Adopter]: what another
// process has ended stays ended.
type endedOf struct {
	keySet
	of     *ended
	family family
}

// Adopt implements [nft.Adopter].
func (e endedOf) Adopt(found []nft.Element) bool {
	for _, one := range found {
		size := 4
		if e.family == ipv6 {
			size = 16
		}
		fields := nft.Fields(one.Key)
		var f flow
		from, port := fields.Address(size), fields.Port()
		f.from = netip.AddrPortFrom(from, port)
		to, port := fields.Address(size), fields.Port()
		f.to, f.protocol = netip.AddrPortFrom(to, port), Protocol(fields.Protocol())
		e.of.add(f, endedFlow{since: time.Now(), found: true})
	}
	// Both ways of each are in the set, or are as good as new.
	e.of.changes[e.family].Added = nil
	return true
}

// any reports whether there are flows that are to be refused, or may be.
func (e *ended) any() bool { return e.left || len(e.flows) > 0 }

// look finds out whether there are any left in the kernel.
func (e *ended) look(k *nft.Keeper) {
	for f, of := range e.elements() {
		err := k.Elements(tableID, endedSet(family(f), of), func(nft.Element) { e.left = true })
		e.left = e.left || err != nil && !notThere(err)
	}
}

// endedSet is where the flows of a family are.
func endedSet(f family, of nft.Elements) nft.Set {
	address := f.addressType()
	return nft.Set{
		Name: "ended" + f.suffix(), Elements: of,
		Type: fmt.Sprintf("%s . inet_service . %s . inet_service . inet_proto", address, address[len("type "):]),
	}
}

func (e *ended) elements() (all [len(families)]nft.Elements) {
	for _, f := range families {
		all[f] = endedOf{e.keys[f], e, f}
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

// has reports whether a flow was ended, in whichever direction its packets go.
func (e *ended) has(f flow) bool {
	_, is := e.flows[f]
	_, turned := e.flows[flow{f.to, f.from, f.protocol}]
	return is || turned
}

// add notes a flow, unless it is noted, in whichever direction: no two flows have a key
// in common.
func (e *ended) add(f flow, of endedFlow) {
	if e.has(f) || len(e.flows) >= mostEnded {
		return
	}
	e.flows[f] = of
	fam := familyOf(f.from.Addr())
	for _, key := range f.ways() {
		e.keys[fam][key] = struct{}{}
		e.changes[fam].Added = append(e.changes[fam].Added, nft.Element{Key: key})
	}
}

// remove forgets flows. It has to come before those that are added.
func (e *ended) remove(over func(flow, endedFlow) bool) {
	for f, of := range e.flows {
		if !over(f, of) {
			continue
		}
		delete(e.flows, f)
		fam := familyOf(f.from.Addr())
		for _, key := range f.ways() {
			delete(e.keys[fam], key)
			e.changes[fam].Deleted = append(e.changes[fam].Deleted, nft.Element{Key: key})
		}
	}
}

// forgetter is [conntrack.ForgetFlows].
type forgetter func(stale func(conntrack.Flow) bool) (int, error)

// seen is a flow as connection tracking has it: what its packets are like where they
// are forwarded.
func seen(f conntrack.Flow) flow {
	return flow{netip.AddrPortFrom(f.Source.Addr().Unmap(), f.Source.Port()), netip.AddrPortFrom(f.Answering.Addr().Unmap(), f.Answering.Port()), Protocol(f.Protocol)}
}

// end puts an end to the flows that are no longer allowed: they are refused from now on,
// and then forgotten. All others go on.
func (c *Controller) end(sync func() error) error {
	if c.forget == nil {
		return nil
	}
	now := time.Now()
	mine, err := own()
	if err != nil {
		return err
	}
	refused := func(f flow) bool {
		if mine[f.from.Addr()] || mine[f.to.Addr()] {
			return false
		}
		port := f.to.Port()
		if !f.protocol.HasPorts() {
			port = 0
		}
		return c.plan.refuses(c.world, f.from.Addr(), f.to.Addr(), f.protocol, port)
	}
	c.ended.remove(func(f flow, of endedFlow) bool {
		return now.Sub(of.since) > endedFor || !refused(f) && !(of.found && refused(flow{f.to, f.from, f.protocol}))
	})
	stale := map[flow]bool{}
	if len(c.plan.leads) > 0 {
		_, err = c.forget(func(one conntrack.Flow) bool {
			if !one.Source.IsValid() || !one.Answering.IsValid() {
				return false
			}
			if f := seen(one); refused(f) || c.ended.has(f) {
				stale[f] = true
				if f.protocol.HasPorts() {
					c.ended.add(f, endedFlow{since: now})
				}
			}
			return false
		})
	}
	if err := errors.Join(err, sync()); err != nil || len(stale) == 0 {
		return err
	}
	n, err := c.forget(func(f conntrack.Flow) bool {
		return f.Source.IsValid() && f.Answering.IsValid() && stale[seen(f)]
	})
	c.endedFlows.Add(uint64(n))
	if n > 0 {
		c.log.Info("connections that are no longer allowed were ended", "connections", n)
	}
	return err
}
