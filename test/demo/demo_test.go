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
		`    node3   172\.30\.1\.3   fd00:30:1::3   10\.244\.3\.0/24   fd00:244:3::/64\n`,
		`    node1   [0-9.]+ ms +bin/flatnet, bin/flatnet-ipam, net\.d/10-flatnet\.conflist\n`,
		`    node node1: ready `,
		`    node2  fd00:244:2::/64  direct  fd00:30::2  eth0        present  `,
		`    node3  10\.244\.3\.0/24    vxlan   172\.30\.1\.3  flatnet\.vx  present  `,
		`    no problems\n`,
		`    web-1   node1   10\.244\.1\.2   fd00:244:1::2   veth[0-9a-f]{11}   1450   [0-9.]+ ms\n`,
		`    db-3    node3   10\.244\.3\.3   fd00:244:3::3   veth`,
		`    same node   12 of 12   [0-9]+ µs\n    direct      16 of 16   [0-9]+ µs\n    vxlan       32 of 32   `,
		`Those at db-3:\n\n    10\.244\.1\.2 10\.244\.1\.3 10\.244\.2\.2 10\.244\.2\.3 10\.244\.3\.2\n`+
			`    fd00:244:1::2 fd00:244:1::3 fd00:244:2::2 fd00:244:2::3 fd00:244:3::2\n`,
		`60 of 60 paths: every receiver saw the sender's own address, so none was translated\.\n`,
		`    node   pod \(same node, direct\)   20 of 20   the node's address   `,
		`    node   pod \(vxlan\)               16 of 16   the node's address on the overlay   `,
		`    pod    node                      36 of 36   the pod's own address   `,
		`    pod    outside                   12 of 12   the address of the pod's node   `,
		`    172\.30\.0\.1 172\.30\.0\.2 172\.30\.1\.3\n    fd00:30::1 fd00:30::2 fd00:30:1::3\n`,
		`    web-1   web-2   direct   IPv4   ([0-9]{3,}) +[0-9]+ +0\n`,
		`    web-1   web-3   vxlan    IPv6   ([0-9]{3,}) +[0-9]+ +0\n`,
		`the pod late-1 was attached \([0-9.]+ ms\)`,
		`finds no difference in 6 of 6 pods`,
		`DEL has detached 6 of 6 pods`,
		`    removed .*/10-flatnet\.conflist\n`,
		// One table is the hold on translated connections, from Linux 5.12 on, and one the fast
		// path's, where programs may be loaded.
		`    node1   with pods   3            19       2       [234]            [0-9]+\n`+
			`            now         0            0        0       0            0\n`,
		`- nothing left\n`,
	)
}

func TestInterruptionLeavesNothing(t *testing.T) {
	demotest.Interrupted(t, run, "- nothing left\n\n",
		demotest.Place{At: "1. Nodes", After: 0},
		demotest.Place{At: "1. Nodes", After: 50 * time.Millisecond},    // one flatnetd runs
		demotest.Place{At: "2. flatnetd", After: 20 * time.Millisecond}, // some pods are there
		demotest.Place{At: "3. Pods", After: time.Millisecond},
		demotest.Place{At: "5. Nodes", After: 0},
		demotest.Place{At: "5. Nodes", After: 100 * time.Millisecond}, // pings run
		demotest.Place{At: "5. Nodes", After: 220 * time.Millisecond}, // flatnetd has been killed
		demotest.Place{At: "7. Pods", After: 0},
		demotest.Place{At: "7. Pods", After: 50 * time.Millisecond}, // some nodes are clean
	)
}
