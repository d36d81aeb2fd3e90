package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
)

// A port that is asked for by its name is that of the destination.
func TestPortByItsName(t *testing.T) {
	c := NewController(&handed{}, silent)
	c.world = guarded()
	far := netip.MustParseAddr("10.0.0.9")
	c.world.apply(Batch{Pods: map[Name]*Pod{
		{"shop", "web"}: {Name: Name{"shop", "web"}, UID: "1", Labels: labels.Set{"app": "web"}, Addresses: []netip.Addr{webAddress}, Ports: []NamedPort{
			{"http", TCP, 8080}, {"http", UDP, 8081}, {"dns", UDP, 53}, {"two", TCP, 1}, {"two", TCP, 2},
		}},
		{"shop", "far"}: {Name: Name{"shop", "far"}, Addresses: []netip.Addr{far}, Ports: []NamedPort{{"http", TCP, 80}}},
		{"shop", "old"}: {Name: Name{"shop", "old"}, Addresses: []netip.Addr{used}},
	}})
	for _, ask := range []struct {
		to   netip.Addr
		port Port
		want string
	}{
		{webAddress, Port{Protocol: TCP, First: 7, Last: 7}, "7 <nil>"},
		{webAddress, Port{Protocol: TCP, Name: "http"}, "8080 <nil>"},
		{webAddress, Port{Protocol: UDP, Name: "http"}, "8081 <nil>"},
		{far, Port{Protocol: TCP, Name: "http"}, "80 <nil>"},
		{webAddress, Port{Protocol: TCP, Name: "dns"}, "0 pod shop/web has no port dns/tcp: its ports with a name are " +
			"http/tcp (8080), http/udp (8081), dns/udp (53), two/tcp (1), two/tcp (2)"},
		{webAddress, Port{Protocol: TCP, Name: "two"}, "0 port two/tcp: pod shop/web has several ports of this name, [1 2]: give one of the numbers"},
		{used, Port{Protocol: TCP, Name: "http"}, "0 pod shop/old has no port http/tcp: none of its ports has a name"},
		{netip.MustParseAddr("10.0.0.77"), Port{Protocol: TCP, Name: "http"},
			"0 port http/tcp: nothing is known of a pod TO, and only a pod's ports have names: give a number"},
	} {
		number, err := c.numberOf(ask.port, "TO", []netip.Addr{ask.to})
		if got := fmt.Sprint(number, " ", err); got != ask.want {
			t.Errorf("%v at %s: %s, want %s", ask.port, ask.to, got, ask.want)
		}
	}
	// The object is that of a pod that had the name before.
	c.world.attach([]Attached{{Name: Name{"shop", "web"}, UID: "2", Addresses: []netip.Addr{webAddress}}})
	if number, err := c.numberOf(Port{Protocol: TCP, Name: "http"}, "shop/web", []netip.Addr{webAddress}); err == nil {
		t.Errorf("the port of a pod that nothing is known of is %d", number)
	}
}
