package main

import (
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/report/demotest"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func TestDemoShowsWhatItPromises(t *testing.T) {
	demotest.Shows(t, run,
		`    a1\$ birdc show route table master4\n`,
		`    10\.244\.1\.0/24 +unicast \[node4 `,
		`    a2\$ vtysh -c "show bgp ipv4"\n`,
		`    n1\$ ip route show proto 70\n`,
		`    \tnexthop via 172\.30\.0\.251 dev eth0 weight 1\n    \tnexthop via 172\.30\.0\.252 dev eth0 weight 1\n`,
		`    n1\$ flatnetd status bgp\n    AS 64512, router id 172\.30\.0\.1\n`,
		`    a1v6 +fd00:30::251 +64601 +established `,
		`    web-1   web-5   IPv4   \S+ → a[12] → b[12] → n2 → web-5\n`,
		`    web-1   web-6   IPv6   \S+ → a[12] → b[12] → n2 → web-6\n`,
		`    world   web-1   10\.244\.1\.2 +172\.31\.0\.9 +a[12] → n1 → web-1\n`,
		`and the pod sees 172\.31\.0\.9\.\n`,
		`    b2\$ vtysh -c "show bgp ipv4 unicast 198\.51\.100\.1/32"\n`,
		`\d+ +32 +\d+ +\d+\.\d s +\d+\.\d s\n`,
		`    10\.244\.2\.0/24 via 172\.30\.0\.252 dev eth0 src 172\.30\.0\.1 ?\n`,
		`    sent +lost\n    \d{4,} +[012]\n`,
		`    removed announcements to a1\n`,
		`- 64 of 64 paths between pods of different racks`,
		`- nothing left, on nodes and in routers' tables\n`,
	)
}

func TestInterruptionLeavesNothing(t *testing.T) {
	demotest.Interrupted(t, run, "",
		demotest.Place{At: "1. Two racks", After: 0},
		demotest.Place{At: "1. Two racks", After: 100 * time.Millisecond}, // routers run
		demotest.Place{At: "2. What is told", After: 0},
		demotest.Place{At: "2. What is told", After: 100 * time.Millisecond}, // pods are there
		demotest.Place{At: "4. A machine", After: 200 * time.Millisecond},    // a router is dead
	)
}
