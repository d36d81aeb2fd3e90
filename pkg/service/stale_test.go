package service

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// TestForgottenFlows: flows are forgotten when their endpoint is gone, also where no
// rule changes with that, and again where it failed.
func TestForgottenFlows(t *testing.T) {
	p := NewPlanner(nodeN(1))
	k, _ := newFakeKeeper(t)
	flow := func(endpoint string) kernel.Flow {
		return kernel.Flow{Destination: netip.MustParseAddrPort("10.96.0.1:53"), Answering: netip.MustParseAddrPort(endpoint)}
	}
	var forgotten []string
	var fail error
	k.forget = func(protocol Protocol, stale func(kernel.Flow) bool) error {
		for _, at := range []string{"10.244.1.5:53", "10.244.2.6:53"} {
			if protocol == UDP && stale(flow(at)) {
				forgotten = append(forgotten, at)
			}
		}
		return fail
	}
	sync := func(endpoints, want string) {
		t.Helper()
		forgotten = nil
		p.Set(worldOf(t, "dns cluster=10.96.0.1 53/udp\n  53/udp "+endpoints))
		_, err := k.Sync(t.Context(), p.Ruleset())
		if (err == nil) != (fail == nil) {
			t.Errorf("%s: %v", endpoints, err)
		}
		if got := strings.Join(forgotten, " "); got != want {
			t.Errorf("%s: forgotten are %q, want %q", endpoints, got, want)
		}
	}
	sync("10.244.1.5@n1 10.244.2.6@n2", "")
	sync("10.244.1.5@n1!terminating 10.244.2.6@n2", "")
	sync("10.244.2.6@n2", "10.244.1.5:53")
	fail = errors.New("interrupted")
	sync("10.244.1.5@n1", "10.244.2.6:53")
	fail = nil
	sync("10.244.1.5@n1", "10.244.2.6:53")
	sync("10.244.1.5@n1", "")
}
