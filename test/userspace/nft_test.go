package userspace_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/cluster"
)

// node is a node with everything that flatnet makes of nftables: masquerading by
// the agent and by the plugin, the guard of IPv6 sources, and Services.
func node(t *testing.T) (*cluster.Cluster, *cluster.Node) {
	t.Helper()
	c := cluster.Start(t)
	segment := c.OneSegment(cluster.Dual, 2)
	kubeconfig := controlPlane(t, c, segment)
	for _, n := range c.Nodes {
		// What goes to a ClusterIP has to have a way, though it never takes it.
		must(t, n.AddRoute("default", "172.30.0.250"))
		must(t, n.AddRoute("default", "fd00:30::fa"))
	}
	c.Start("--fabric", "auto", "--services", "--kubeconfig", kubeconfig)
	n := c.Node("n1")
	n.Pod("one")
	own := filepath.Join(n.Directory, "own.conflist")
	must(t, os.WriteFile(own, fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "flatnet", "stateDir": %q,
		"ipMasq": true, "ipam": {"ranges": [[{"subnet": %q}], [{"subnet": %q}]]}}]}`, n.StateDir, "10.245.1.0/24", "fd00:245:1::/64"), 0o644))
	n.PodWith("own", own)
	served(t, c, n)
	return c, n
}

// ports are what Services have: four of them, TCP and UDP, in each family.
const ports = 16

// served waits until the node balances all Services.
func served(t *testing.T, c *cluster.Cluster, n *cluster.Node) {
	t.Helper()
	c.Eventually("rules of Services on "+n.Name, func() error {
		status, err := agent.AskServices(t.Context(), n.StateDir)
		if err == nil && (len(status.Ports) != ports || !status.Synced) {
			err = fmt.Errorf("%d ports, want %d; synced %t", len(status.Ports), ports, status.Synced)
		}
		return err
	})
}

// tooOldForServices is whether an nft knows no numgen in the type of a map, which
// the endpoints of Services have: nft 0.9.8 ends with an assertion where there is
// such a map in any table ("concat_expr_msort_value: Assertion `ilen > 0' failed").
func tooOldForServices(version string) bool { return strings.HasPrefix(version, "v0.") }

// TestEveryNFTReadsTheTables: somebody who looks at a node with whatever nft is
// there sees flatnet's tables.
func TestEveryNFTReadsTheTables(t *testing.T) {
	_, n := node(t)
	_, plain := node(t) // and one that balances no Services
	plain.Restart("--fabric", "auto")
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			nft := filepath.Join(programs(t, suite), "nft")
			number, n := version(t, nft), n
			t.Logf("Debian's %s has nft %s", suite, number)
			tooOld := tooOldForServices(number)
			if tooOld {
				n = plain
			}
			for table, names := range map[string][]string{
				"inet flatnet":         {"chain ", "set "},
				"ip flatnet":           {"chain postrouting", "set "},
				"ip6 flatnet":          {"chain postrouting", "set "},
				"ip flatnet-services":  {"chain prerouting", "chain output", "map endpoints-tcp", "10.96.0.1"},
				"ip6 flatnet-services": {"chain prerouting", "chain output", "map endpoints-tcp", "fd00:96::1"},
			} {
				if tooOld && strings.HasSuffix(table, "-services") {
					continue
				}
				text, err := n.Output(nft, append([]string{"list", "table"}, strings.Fields(table)...)...)
				if err != nil {
					t.Errorf("table %s: %v", table, err)
					continue
				}
				for _, name := range names {
					if !strings.Contains(text, name) {
						t.Errorf("table %s has no %s:\n%s", table, name, text)
					}
				}
			}
			for _, arguments := range []string{"list ruleset", "-a -n list ruleset", "-j list ruleset", "-s list ruleset"} {
				if _, err := n.Output(nft, strings.Fields(arguments)...); err != nil {
					t.Errorf("nft %s: %v", arguments, err)
				}
			}
		})
	}
}

// TestNoProgram: flatnetd writes all its tables where there is no program at all.
func TestNoProgram(t *testing.T) {
	c, n := node(t)
	n.Stop()
	for _, table := range []string{"ip flatnet-services", "ip6 flatnet-services", "inet flatnet"} {
		_, err := n.Output("nft", append([]string{"delete", "table"}, strings.Fields(table)...)...)
		must(t, err)
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	n.StartAgain()
	n.WaitReady()
	served(t, c, n)
	if problems := n.Status().Problems; len(problems) > 0 {
		t.Errorf("problems are %v", problems)
	}
	t.Setenv("PATH", path)
	tables, err := n.Output("nft", "list", "tables")
	must(t, err)
	for _, table := range []string{"ip flatnet-services", "ip6 flatnet-services", "inet flatnet"} {
		if !strings.Contains(tables, "table "+table+"\n") {
			t.Errorf("there is no table %s:\n%s", table, tables)
		}
	}
}
