package masquerade

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/conntrack"
)

// A connection that began while the rules were not there, because somebody had
// flushed them or flatnetd came up after a pod, has not been translated, and is
// not for as long as the kernel remembers it: its packets go out with the pod's
// address, and the client repeats the first one for minutes in vain. So such
// connections are forgotten once the rules are there, and the next packet is the
// first of a new one. One that was ever answered works as it is, and stays.

// forgetAstray forgets the connections that would be translated if they began
// now, were not, and were never answered.
func forgetAstray(want Ruleset) error {
	astray := func(f conntrack.Flow) bool {
		if f.Answered || f.Seen != f.Source {
			return false
		}
		suffix := "4"
		if f.Source.Addr().Is6() {
			suffix = "6"
		}
		if !want.elements("own" + suffix).Contains(f.Source.Addr()) {
			return false
		}
		return !slices.ContainsFunc([]string{"pods", "nodes", "exempt"}, func(name string) bool {
			return want.elements(name + suffix).Contains(f.Answering.Addr())
		})
	}
	var errs []error
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_SCTP} {
		_, err := conntrack.Forget(protocol, astray)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
