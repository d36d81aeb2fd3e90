package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/feature"
)

func TestStatusForPeople(t *testing.T) {
	now := time.Unix(100000, 0)
	status := FabricStatus{
		Source: "kubernetes", Fabric: fabric.Auto, Tunnel: "flatnet.vx", PodMTU: 1450,
		Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("fd00:30::1")},
		PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
	}
	pods := PodsStatus{Pods: []Usage{{"IPv4", 253, 12, 3, 2}, {"IPv6", 1<<64 - 1, 12, 0, 0}}}
	peers := PeersStatus{
		Objects: Objects{9, 8},
		Peers: []PeerStatus{
			{Name: "n2", Mode: "direct", Ways: []WayStatus{{PodCIDR: netip.MustParsePrefix("10.244.2.0/24"), Mode: fabric.Direct, Via: netip.MustParseAddr("172.30.0.2"), Link: "eth0", Present: true, Health: &HealthStatus{State: "ok", Sent: 20, Lost: 1, RoundTrip: 310}}}, Changed: now.Add(-90 * time.Second)},
			{Name: "n3", Mode: "vxlan", Ways: []WayStatus{{PodCIDR: netip.MustParsePrefix("10.244.3.0/24"), Mode: fabric.VXLAN, Via: netip.MustParseAddr("172.31.0.3"), Link: "flatnet.vx", Present: false}}, Changed: now.Add(-50 * time.Hour)},
			{Name: "n4", Mode: "none", Ways: []WayStatus{{PodCIDR: netip.MustParsePrefix("10.244.4.0/24")}}, Changed: now},
			{Name: "n5", Mode: "waiting", Changed: now},
		},
	}
	d := document{
		head:  Head{Node: "n1", Version: "1.2.3", Since: now.Add(-3 * time.Hour), Ready: false, NotReady: "nodes may have changed since: no answer"},
		parts: []feature.Part{status.part(), MasqueradeStatus{Masquerade: []string{"IPv4"}, ClampMSS: true}.part(), pods.part(), peers.part(), ServicesStatus{}.part(), kernelPart(KernelStatus{})},
		problems: ProblemsStatus{[]Trouble{
			{Kind: "vxlan-number", Node: "n1", Object: "VXLAN device vxlan0", Reason: "has VNI 70", Advice: "remove it", Follows: []Trouble{
				{Node: "n1", Object: "ip addr add 10.244.1.0/32 dev flatnet.vx", Reason: "missing"}, {Node: "n2", Object: "two", Reason: "missing"},
				{Node: "n3", Reason: "has no podCIDR"}, {Object: "four"}, {Object: "five"},
			}},
			{Kind: "peer-route", Node: "n4", Object: "podCIDR 10.244.4.0/24", Reason: "node n1 has no route to the node's address 172.99.0.4", Advice: "look at `ip route get 172.99.0.4`", Follows: []Trouble{{Object: "one", Reason: "is missing"}}},
			{Kind: "no-podcidr", Node: "n1", Reason: "has no usable podCIDR", Advice: "give it one"},
		}},
	}
	var b strings.Builder
	d.print(&b, now)
	const want = `node n1: NOT READY: nodes may have changed since: no answer (flatnetd 1.2.3, up 3h0m)
  nodes from      kubernetes
  fabric          auto, overlay on flatnet.vx
  addresses       172.30.0.1 fd00:30::1
  podCIDRs        10.244.1.0/24
  pod MTU         1450
  masquerade      IPv4
  IPv4 addresses  12 of 253 used, 3 cooling, 2 outside of the podCIDRs
  IPv6 addresses  12 of billions used, 0 cooling
  fabric objects  8 of 9 present

PEER  PODCIDR        MODE                 VIA         DEV         ROUTE    PROBES           CHANGED
n2    10.244.2.0/24  direct               172.30.0.2  eth0        present  0.31ms, 5% lost  1m30s
n3    10.244.3.0/24  vxlan                172.31.0.3  flatnet.vx  MISSING  -                2d2h
n4    10.244.4.0/24  -                    -           -           -        -                0s
n5    -              waiting for podCIDR  -           -           -        -                0s

problems: 3
  - node n1: VXLAN device vxlan0: has VNI 70 [vxlan-number]
    remove it
    and 5 things that follow from it: node n1: ip addr add 10.244.1.0/32 dev flatnet.vx; node n2: two; node n3: has no podCIDR; and 2 more
  - node n4: podCIDR 10.244.4.0/24: node n1 has no route to the node's address 172.99.0.4 [peer-route]
    look at ` + "`ip route get 172.99.0.4`" + `
    and 1 thing that follows from it: one
  - node n1: has no usable podCIDR [no-podcidr]
    give it one
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
