package masquerade

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// A connection that began while the rules were not there, because somebody had
// flushed them or flatnetd came up after a pod, has not been translated, and is
// not for as long as the kernel remembers it: its packets go out with the pod's
// address, and the client repeats the first one for minutes in vain. So such
// connections are forgotten once the rules are there, and the next packet is the
// first of a new one. One that was ever answered works as it is, and stays.

// forgetAstray forgets the connections that would be translated if they began
// now, were not, and were never answered.
func forgetAstray(want content) error {
	sets := map[string][]span{}
	for _, s := range want.sets {
		sets[s.name] = s.elements
	}
	astray := func(f kernel.Flow) bool {
		if f.Answered || f.Seen != f.Source {
			return false
		}
		suffix := "4"
		if f.Source.Addr().Is6() {
			suffix = "6"
		}
		if !within(sets["own"+suffix], f.Source.Addr()) {
			return false
		}
		return !slices.ContainsFunc([]string{"pods", "nodes", "exempt"}, func(name string) bool {
			return within(sets[name+suffix], f.Answering.Addr())
		})
	}
	var errs []error
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_SCTP} {
		_, err := kernel.ForgetFlows(protocol, astray)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// within reports whether one of the spans, which are in order and do not overlap,
// holds the address.
func within(spans []span, a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(spans, a, func(s span, a netip.Addr) int {
		switch {
		case s.last.Less(a):
			return -1
		case a.Less(s.first):
			return 1
		}
		return 0
	})
	return found
}

// translatesAnew reports whether a repair makes rules that translate, where there
// were none or others.
func (r repair) translatesAnew(want content) bool {
	translates := func(c chain) bool { return c.name == translating }
	return r.remake && slices.ContainsFunc(want.chains, translates) ||
		slices.ContainsFunc(r.addChains, translates) || slices.ContainsFunc(r.refill, translates)
}
