package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/plugin"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

func TestAttachedPodsForPeople(t *testing.T) {
	now := time.Unix(1000000, 0)
	rate := func(bits uint64) *wire.Rate { return &wire.Rate{BitsPerSecond: bits} }
	all := AttachedPods{[]AttachedPod{
		{Pod: "shop/a", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00::2")}, HostInterface: "veth1", Since: now.Add(-45 * time.Second)},
		{Pod: "shop/b", HostInterface: "veth2", HostPorts: []ports.Mapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}, Since: now.Add(-8 * 24 * time.Hour), Bandwidth: &wire.Bandwidth{Ingress: rate(10_000_000)}},
		{Key: attachment.Key{ContainerID: "c1"}, HostInterface: "veth3", Device: kernel.Netkit, Since: now.Add(-3 * time.Hour), Bandwidth: &wire.Bandwidth{Egress: rate(1_048_576)}},
		{Pod: "shop/d", HostInterface: "veth4", Since: now.Add(-7 * time.Minute), Bandwidth: &wire.Bandwidth{Ingress: rate(2_500_000), Egress: rate(3_000_000_000)}, Faults: []plugin.Fault{
			{Word: "interface down", Reason: "one"}, {Word: "route missing", Reason: "two"}, {Word: "route missing", Reason: "three"},
		}},
	}}
	var b strings.Builder
	all.Print(&b, now)
	const want = `POD     ADDRESSES           INTERFACE       PORTS     RATES      SINCE  WRONG
shop/a  10.244.1.2 fd00::2  veth1           -         -          45s    -
shop/b  none                veth2           8080/tcp  10M/-      8d     -
c1      none                veth3 (netkit)  -         -/1048576  3h     -
shop/d  none                veth4           -         2500k/3G   7m     interface down, route missing

shop/d: one
shop/d: two
shop/d: three
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
