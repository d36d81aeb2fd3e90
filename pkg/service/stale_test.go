package service

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/conntrack"
)

// TestForgottenFlows: flows are forgotten when their endpoint is gone, also where no
// rule changes with that, and again where it failed.
func TestForgottenFlows(t *testing.T) {
	p := NewPlanner(nodeN(1))
	k, ns := labKeeper(t)
	flow := func(endpoint string) conntrack.Flow {
		return conntrack.Flow{Destination: netip.MustParseAddrPort("10.96.0.1:53"), Answering: netip.MustParseAddrPort(endpoint)}
	}
	var forgotten []string
	var fail error
	k.forget = func(protocol Protocol, stale func(conntrack.Flow) bool) error {
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
		var err error
		must(t, ns.Do(func() error { _, err = k.Sync(t.Context(), p.Ruleset()); return nil }))
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

// endpointsWhere are the endpoints that something is true of, among all that tests know.
func endpointsWhere(is func(netip.AddrPort) bool) (all []netip.AddrPort) {
	for node := range 4 {
		for host := range 6 {
			for port := range 2 {
				at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(node), byte(host)}), uint16(8080+port))
				if is(at) {
					all = append(all, at)
				}
			}
		}
	}
	return all
}

// TestStaleIsWhatIsGone: flows and clients are looked for where an endpoint is gone that
// they may be with, and where none is they are not, whatever became of the numbers.
func TestStaleIsWhatIsGone(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 17))
	gone := func(before, after []netip.AddrPort) bool {
		return slices.ContainsFunc(before, func(at netip.AddrPort) bool { return !slices.Contains(after, at) })
	}
	seen := map[string]int{}
	for range 60 {
		p := NewPlanner(nodeN(1))
		s := randomService(r, 1)
		s.Affinity = time.Minute
		p.Set(s)
		for range 30 {
			was := p.Ruleset().Fronts()
			s = edited(r, s)
			p.Set(s)
			for f, before := range was {
				after := p.Ruleset().fronts[f]
				if after == nil || familyOf(f.Address) != ipv4 {
					continue
				}
				if f.Protocol == UDP && before.serving.size() > 0 {
					want := gone(endpointsWhere(before.serving.has), endpointsWhere(after.serving.has))
					if got := staleFlows(before, after); got != want {
						t.Fatalf("flows to %s are looked at: %t, want %t", f, got, want)
					}
					seen[fmt.Sprint("flows ", want)]++
				}
				want := gone(endpointsWhere(before.valid), endpointsWhere(after.valid))
				if _, got := staleClients(f, before, after); got != want {
					t.Fatalf("clients of %s are looked at: %t, want %t", f, got, want)
				}
				seen[fmt.Sprint("clients ", want)]++
			}
		}
	}
	for _, what := range []string{"flows true", "flows false", "clients true", "clients false"} {
		if seen[what] == 0 {
			t.Errorf("there was no case of %s", what)
		}
	}
}
