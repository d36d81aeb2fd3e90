package service

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/conntrack"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// staleFront is a front of UDP whose flows may lead to endpoints that are gone.
type staleFront struct {
	front  Front
	target *Target // nil: it is no front any more
}

// keeps reports whether a flow that an endpoint answers may stay.
func (s staleFront) keeps(answering netip.AddrPort) bool {
	if s.target == nil {
		return false
	}
	return s.target.serving.has(answering)
}

// staleFlows reports whether there may be flows of UDP to forget after a front's
// target has changed; either target may be nil. There are none where every endpoint
// that was still is.
func staleFlows(before, after *Target) bool {
	return before == nil || after == nil || before.serving.size() == 0 || before.serving.loses(after.serving, after.serving.has)
}

// forgetFunc deletes the connection tracking entries of a protocol for which stale
// says so.
type forgetFunc func(protocol Protocol, stale func(conntrack.Flow) bool) error

// forgetFlows is the kernel's.
func forgetFlows(protocol Protocol, stale func(conntrack.Flow) bool) error {
	_, err := conntrack.Forget(uint8(protocol), stale)
	if err != nil && requirements.Check(requirements.Running{}, requirements.Forgetting).Lacks(requirements.Forgetting) {
		return nil // the rest of the Services is served; flatnetd says what follows
	}
	return err
}

// expireFlows forgets the flows of UDP to these fronts that go somewhere else than
// to an endpoint that serves: to one that is gone, or to nowhere, because they
// began before there was the Service. A client that goes on sending from the same
// port would keep them alive for ever.
func (k *Keeper) expireFlows(fronts []staleFront) error {
	if len(fronts) == 0 || k.forget == nil {
		return nil
	}
	at := make(map[netip.AddrPort]staleFront, len(fronts))
	for _, f := range fronts {
		at[netip.AddrPortFrom(f.front.Address, f.front.Port)] = f
	}
	return k.forget(UDP, func(f conntrack.Flow) bool {
		front, is := at[f.Destination]
		return is && !front.keeps(f.Answering)
	})
}

// verifyFlows does the same for all fronts: some endpoints may have gone while
// nobody was looking. It also forgets connections to ClusterIPs that began while
// the tables were not there: the client repeats its first packet for minutes, and
// each would go the way of the first.
func (k *Keeper) verifyFlows(want *Ruleset) error {
	if k.forget == nil {
		return nil
	}
	var all []staleFront
	for f, t := range want.fronts {
		if f.Protocol == UDP {
			all = append(all, staleFront{f, t})
		}
	}
	astray := k.forget(TCP, func(f conntrack.Flow) bool {
		t := want.fronts[Front{f.Destination.Addr(), TCP, f.Destination.Port()}]
		return f.Answering == f.Destination && t != nil && t.Kind == ClusterIP
	})
	return errors.Join(k.expireFlows(all), astray)
}

// loses reports whether there is an endpoint that another roster does not have and that
// is not kept anyhow. Who is no longer there no longer has his number.
func (r *roster) loses(o *roster, kept func(netip.AddrPort) bool) (any bool) {
	r.differ(o, func(_ int, before, _ netip.AddrPort) {
		any = any || before.IsValid() && !kept(before)
	})
	return any
}

// staleAffinity is a Service's port whose clients may be remembered with
// endpoints that are gone.
type staleAffinity struct {
	stickyPort
	all bool // whatever is remembered may be wrong
}

// staleClients compares two targets of a front, either of which may be nil.
func staleClients(f Front, before, after *Target) (s staleAffinity, any bool) {
	if before == nil || before.affinity == 0 {
		return s, false
	}
	s.stickyPort = stickyPort{familyOf(f.Address), f.Protocol, before.id}
	if after == nil || after.id != before.id || after.affinity == 0 {
		return s, true
	}
	if before.localOnly != after.localOnly {
		s.all = true
		return s, true
	}
	return s, before.clusterUsed().loses(after.clusterUsed(), after.valid) || before.localUsed().loses(after.localUsed(), after.valid)
}

// expire forgets flows and clients that would go to endpoints that are gone.
func (k *Keeper) expire(want *Ruleset, d delta) error {
	errs := []error{k.expireFlows(d.stale)}
	if len(d.clients) > 0 {
		concerned := map[stickyPort]bool{}
		for _, s := range d.clients {
			concerned[s.stickyPort] = concerned[s.stickyPort] || s.all
		}
		errs = append(errs, k.expireClients(want, concerned))
	}
	return errors.Join(errs...)
}

// expireClients forgets clients of these ports, all of them where it says so, or
// else those with an endpoint that is gone. Whoever connects between the
// transaction and this may still be sent to such an endpoint.
func (k *Keeper) expireClients(want *Ruleset, concerned map[stickyPort]bool) error {
	which := map[stickyPort]bool{}
	for s := range concerned {
		which[stickyPort{family: s.family, protocol: s.protocol}] = true
	}
	for w := range which {
		err := k.deleteClients(w.family, w.protocol, func(id uint32, at netip.AddrPort) bool {
			s := stickyPort{w.family, w.protocol, id}
			all, is := concerned[s]
			return is && (all || !want.remains(s, at))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// verifyClients forgets all clients that are remembered with endpoints that they
// are not to go to.
func (k *Keeper) verifyClients(want *Ruleset) error {
	for _, f := range want.families() {
		for _, p := range protocols {
			err := k.deleteClients(f, p, func(id uint32, at netip.AddrPort) bool {
				return !want.remains(stickyPort{f, p, id}, at)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// remains reports whether an endpoint is one of any of a port's targets.
func (r *Ruleset) remains(s stickyPort, at netip.AddrPort) bool {
	for t := range r.sticky[s] {
		if t.valid(at) {
			return true
		}
	}
	return false
}

func (k *Keeper) deleteClients(f family, p Protocol, stale func(id uint32, at netip.AddrPort) bool) error {
	set := setAffinityTCP.byProtocol(p).declared(f)
	// One that has expired meanwhile fails the deletion of all.
	for attempt := 1; ; attempt++ {
		const most = 10
		var gone []nft.Element
		err := k.tables.Elements(f.table(), set, func(e nft.Element) {
			key, value := nft.Fields(e.Key), nft.Fields(e.Value)
			key.Address(f.bytes())
			if stale(key.Number(), netip.AddrPortFrom(value.Address(f.bytes()), value.Port())) {
				gone = append(gone, e)
			}
		})
		if err == nil && len(gone) > 0 {
			err = k.tables.Delete(f.table(), set, gone)
		}
		if err == nil {
			return nil
		}
		if attempt == most || !errors.Is(err, nft.ErrInterrupted) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forgetting clients of %s: %w", set.Name, err)
		}
	}
}
