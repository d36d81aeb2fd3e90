package bgp_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/racks"
)

// The podCIDRs of 5,000 nodes are learned of one router, in place of as many ways through
// the tunnel, and back. What that takes is logged.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const many = 5_000
	var nodes, routes strings.Builder
	fmt.Fprintf(&nodes, "nodes:\n- {name: n1, labels: {rack: a}, addresses: [172.30.0.1, \"fd00:30:0::1\"], podCIDRs: [10.244.1.0/24]}\n")
	fmt.Fprintln(&routes, "protocol static many { ipv4;")
	for i := range many {
		fmt.Fprintf(&nodes, "- {name: m%d, addresses: [172.29.%d.%d], podCIDRs: [10.%d.%d.0/24]}\n", i, i/250, 1+i%250, 64+i/256, i%256)
		fmt.Fprintf(&routes, "route 10.%d.%d.0/24 unreachable;\n", 64+i/256, i%256)
	}
	s.A1.Extra = routes.String() + "}\n"
	s.configure(racks.Usual)
	s.WriteNodesText(nodes.String())
	s.N1.Start("--bgp-config", s.Config)
	s.N1.WaitReady()
	joined := func(mode string) {
		await(t, fmt.Sprintf("%d nodes to be reached by %s", many, mode), func() error {
			if have := s.N1.Metrics()[fmt.Sprintf("flatnet_peers{mode=%q}", mode)]; have != many {
				return fmt.Errorf("they are %v", have)
			}
			return nil
		})
	}
	tell := func(what string) {
		for _, program := range []string{"flatnetd", "flatnet-bgp"} {
			for _, pid := range processes(t, s.N1, program) {
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				must(t, err)
				for _, line := range strings.Split(string(status), "\n") {
					if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
						t.Logf("%s: %s: %s", what, program, line)
					}
				}
			}
		}
	}
	joined("vxlan")
	tell("without a router")
	must(t, s.A1.Start())
	await(t, "the session", func() error { return s.established(s.N1, 2) })
	begin := time.Now()
	joined("bgp")
	t.Logf("from the session to %d routes: %s", many, time.Since(begin))
	tell("with a router")
	ask(t, s.A1, "disable many")
	joined("vxlan")
	ask(t, s.A1, "enable many")
	joined("bgp")
}
