package kernel

import (
	"net/netip"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestHasRoute(t *testing.T) {
	lab := netlab.Start(t)
	node := lab.Node("node", lab.Segment("a").Port("172.30.0.1/24", "fd00:30::1/64"))
	check := func(to string, want bool) {
		t.Helper()
		if err := node.Do(func() error {
			got, err := HasRoute(netip.MustParseAddr(to))
			if got != want {
				t.Errorf("%s: %t, want %t", to, got, want)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	route := func(arguments ...string) {
		t.Helper()
		if _, err := node.Output("ip", arguments...); err != nil {
			t.Fatal(err)
		}
	}
	check("172.30.0.9", true)
	check("10.96.0.1", false)
	check("fd00:96::1", false)
	route("route", "add", "10.96.0.0/12", "dev", "eth0")
	route("-6", "route", "add", "default", "via", "fd00:30::2")
	check("10.96.0.1", true)
	check("fd00:96::1", true)
	for _, kind := range []string{"unreachable", "prohibit", "blackhole"} {
		route("route", "replace", kind, "10.96.0.0/12")
		route("-6", "route", "replace", kind, "fd00:96::/64")
		check("10.96.0.1", false)
		check("fd00:96::1", false)
	}
}
