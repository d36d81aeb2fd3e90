// Package cluster makes a Kubernetes-like cluster of a netlab: nodes that run the
// real flatnetd, with the nodes in a file, and pods that the real plugin
// attaches, with the configuration and the binaries that flatnetd installed.
//
//	func TestMain(m *testing.M) { cluster.Main(m) }
//
//	c := cluster.Start(t)
//	c.OneSegment(cluster.Dual, 2)
//	c.Start("--fabric", "vxlan")
//	pod := c.Node("n1").Pod("web")
//
// Like those of a lab, methods that cannot do their work fail the lab's test, or
// panic where there is none. They are for the test's own goroutine.
package cluster

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/poddevice"
)

// datapathVariable is the --datapath of all clusters whose tests do not say it themselves.
const datapathVariable = "FLATNET_DATAPATH"

// clusters numbers the clusters of a process, so that tests may run in parallel.
var clusters atomic.Int64

// Cluster is a set of nodes that know of each other.
type Cluster struct {
	Lab *netlab.Lab
	// Binaries is the directory with flatnetd, flatnet and flatnet-ipam.
	Binaries string
	// Directory is the cluster's own, on the private /run.
	Directory string
	// NodesFile is where the nodes are listed for all flatnetds.
	NodesFile string
	Nodes     []*Node
	// Health is --health where a test's own flags do not say it. In tests it is off: what
	// is cut off on purpose would be one problem more wherever a machine takes its time,
	// and probes are packets that nobody expects on the underlay.
	Health string
	// Datapath is --datapath where a test's own flags do not say it, from $FLATNET_DATAPATH:
	// what is said of Services, policies and routes has to be true by every path of packets.
	Datapath string

	removed  []*Node
	numbered int // nodes that were ever added
}

// New makes a cluster without nodes. Closing the lab ends its processes.
func New(lab *netlab.Lab, binaries string) *Cluster {
	directory := fmt.Sprintf("/run/cluster/%d", clusters.Add(1))
	c := &Cluster{Lab: lab, Binaries: binaries, Directory: directory, NodesFile: filepath.Join(directory, "nodes.yaml"), Health: "auto", Datapath: cmp.Or(os.Getenv(datapathVariable), "kernel")}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		lab.Fail(fmt.Errorf("making directory of cluster: %w", err))
	}
	lab.OnClose(c.close)
	return c
}

// Main builds the programs that a package's tests run, and runs the tests in
// namespaces of their own. Use it as the package's TestMain.
func Main(m *testing.M) {
	// Where nft and iptables are, which is not in everybody's PATH.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	// Building may need the network, so it comes before the namespaces.
	if _, err := binaries.BuildForTest(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	netlab.Main(m)
}

// Start makes a lab and a cluster in it for one test. The test fails if a
// flatnetd ends by itself, panics or has a race, and then shows the logs.
func Start(t testing.TB) *Cluster {
	t.Helper()
	// It was built before the namespaces were entered.
	directory, err := binaries.BuildForTest()
	if err != nil {
		t.Fatal(err)
	}
	poddevice.Chosen(t) // flatnetd takes it from its environment
	c := New(netlab.Start(t), directory)
	c.Health = "off"
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Errorf("closing cluster: %v", err)
		}
		if t.Failed() {
			for _, n := range c.everyNode() {
				t.Logf("log of flatnetd on %s:\n%s", n.Name, n.Log())
			}
		}
		if err := os.RemoveAll(c.Directory); err != nil {
			t.Errorf("removing directory of cluster: %v", err)
		}
	})
	return c
}

// close ends the processes and says what was wrong with them.
func (c *Cluster) close() error {
	var errs []error
	for _, n := range c.everyNode() {
		errs = append(errs, n.end())
	}
	return errors.Join(errs...)
}

// Node returns the node of a name.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	c.Lab.Fail(fmt.Errorf("there is no node %s in the cluster", name))
	return nil
}

// AddNode makes a node with these places on the underlay. Its addresses are
// those of the first port, its podCIDRs 10.244.N.0/24 and fd00:244:N::/64, of
// the families of its addresses; N counts nodes from 1. All of that may be
// changed before it is written with WriteNodes.
func (c *Cluster) AddNode(name string, ports ...netlab.Port) *Node {
	c.numbered++
	node := c.Lab.Node(name, ports...)
	directory := filepath.Join(c.Directory, name)
	n := &Node{
		Node: node, Name: name, Number: c.numbered, cluster: c,
		Directory: directory, StateDir: filepath.Join(directory, "state"),
		BinDir: filepath.Join(directory, "bin"), ConfDir: filepath.Join(directory, "net.d"),
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		c.Lab.Fail(fmt.Errorf("making directory of node: %w", err))
	}
	if len(ports) > 0 {
		for _, p := range ports[0].Addresses() {
			n.Addresses = append(n.Addresses, p.Addr())
			cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n.Number), 0}), 24)
			if p.Addr().Is6() {
				cidr = netip.MustParsePrefix(fmt.Sprintf("fd00:244:%d::/64", n.Number))
			}
			if !slices.Contains(n.PodCIDRs, cidr) {
				n.PodCIDRs = append(n.PodCIDRs, cidr)
			}
		}
	}
	c.Nodes = append(c.Nodes, n)
	return n
}

// everyNode includes those that were removed and may still run.
func (c *Cluster) everyNode() []*Node { return append(slices.Clone(c.Nodes), c.removed...) }

// Remove takes a node from the list of nodes. The machine is still there.
func (c *Cluster) Remove(n *Node) {
	c.Nodes = slices.DeleteFunc(c.Nodes, func(other *Node) bool { return other == n })
	c.removed = append(c.removed, n)
}

// WriteNodes lists the present nodes in the file that all flatnetds watch.
func (c *Cluster) WriteNodes() {
	var text bytes.Buffer
	fmt.Fprintln(&text, "nodes:")
	for _, n := range c.Nodes {
		fmt.Fprintf(&text, "- {name: %s, addresses: [%s], podCIDRs: [%s]}\n", n.Name, quoted(n.Addresses), quoted(n.PodCIDRs))
	}
	c.WriteNodesText(text.String())
}

// quoted is a YAML list: addresses have colons.
func quoted[T fmt.Stringer](items []T) string {
	var all []string
	for _, i := range items {
		all = append(all, fmt.Sprintf("%q", i.String()))
	}
	return strings.Join(all, ", ")
}

// WriteNodesText replaces the content of the file of nodes at once.
func (c *Cluster) WriteNodesText(text string) {
	fresh := c.NodesFile + ".fresh"
	err := os.WriteFile(fresh, []byte(text), 0o644)
	if err == nil {
		err = os.Rename(fresh, c.NodesFile)
	}
	if err != nil {
		c.Lab.Fail(fmt.Errorf("writing nodes: %w", err))
	}
}

// Start lists the nodes, starts flatnetd on each with these flags besides those
// that say where things are, and waits until all are ready.
func (c *Cluster) Start(flags ...string) {
	c.WriteNodes()
	for _, n := range c.Nodes {
		n.Start(flags...)
	}
	for _, n := range c.Nodes {
		n.WaitReady()
	}
}

// patience is how long something may take that normally takes far less.
var patience = pace.Far()

// Eventually asks until there is no error, and fails with the last one after a
// long time. It returns how long it took.
func (c *Cluster) Eventually(what string, ask func() error) time.Duration {
	took, err := pace.Await(patience, ask)
	if err != nil {
		c.Lab.Fail(fmt.Errorf("waiting for %s: %w", what, err))
	}
	return took
}
