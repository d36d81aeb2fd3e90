package fabric_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// controlPlane is a machine on the underlay that serves the nodes of a site as
// Node objects.
type controlPlane struct {
	*apiserver.Server
	t          *testing.T
	machine    *netlab.Node
	kubeconfig string
}

const apiAddress = "172.30.0.250:6443"

func newControlPlane(t *testing.T, s *site) *controlPlane {
	t.Helper()
	c := &controlPlane{
		Server: apiserver.New(), t: t, machine: s.Lab.Node("control", s.segments[0].Port("172.30.0.250/24")),
		kubeconfig: filepath.Join(s.Directory, "kubeconfig"),
	}
	must(t, apiserver.WriteKubeconfig(c.kubeconfig, apiAddress))
	t.Cleanup(c.Stop)
	return c
}

// begin makes the API server answer.
func (c *controlPlane) begin() {
	c.t.Helper()
	must(c.t, c.machine.Do(func() error { return c.Listen(apiAddress) }))
}

// put makes a node a Node object.
func (c *controlPlane) put(n *cluster.Node) { c.Put(n.Object()) }

func (c *controlPlane) flags() []string {
	return []string{"--nodes-file=", "--kubeconfig", c.kubeconfig}
}

// awaitSourceLost waits until a node has noticed that the API server is gone.
func awaitSourceLost(t *testing.T, n *cluster.Node) {
	t.Helper()
	await(t, n.Name+" to say that the API server is gone", func() error {
		status, err := n.TryStatus()
		if err == nil && (status.Ready || !strings.Contains(fmt.Sprint(status.Problems), "source of nodes")) {
			err = fmt.Errorf("it has the problems %v", status.Problems)
		}
		return err
	})
}

// TestAPIServerGoesAway: pods keep talking, new pods start, and a flatnetd that
// starts meanwhile leaves the routes in the kernel as they are. What has changed
// is caught up with when the API server is back.
func TestAPIServerGoesAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	control := newControlPlane(t, s)
	for _, n := range s.Nodes {
		control.put(n)
	}
	control.begin()
	n1, n2 := s.Node("n1"), s.Node("n2")
	for _, n := range s.Nodes {
		n.Start(control.flags()...)
	}
	for _, n := range s.Nodes {
		n.WaitReady()
	}
	one, two := placePod(t, n1, "one"), placePod(t, n2, "two")
	pings := []*pinging{one.ping(t, two, false), two.ping(t, one, true)}
	stream := one.stream(t, two, false)

	control.Stop()
	for _, n := range s.Nodes {
		awaitSourceLost(t, n)
	}
	late := placePod(t, n1, "late")
	for _, ipv6 := range s.families.Each() {
		late.reaches(t, two, ipv6)
	}
	intact := ours(t, n1)
	n1.Kill()
	n1.StartAgain()
	awaitSourceLost(t, n1)
	later := placePod(t, n1, "later")
	later.reaches(t, two, false)
	later.pod.Delete()
	if now := ours(t, n1); now != intact {
		t.Errorf("the state has changed:%s", differing(intact, now))
	}

	// While it is gone, a node joins and another gets another podCIDR.
	n3 := s.segments[0].AddNode()
	n2.PodCIDRs = append(n2.PodCIDRs, netip.MustParsePrefix("10.245.2.0/24"))
	control.put(n2)
	control.put(n3)
	control.Compact()
	n3.Start(control.flags()...)
	awaitSourceLost(t, n3)
	control.begin()
	for _, n := range s.Nodes {
		n.WaitReady()
		awaitPeers(t, n, 2)
	}
	three := placePod(t, n3, "three")
	for _, ipv6 := range s.families.Each() {
		three.awaitReach(t, one, ipv6)
		three.awaitReach(t, two, ipv6)
		late.reaches(t, three, ipv6)
	}
	if text := ours(t, n1); !strings.Contains(text, "10.245.2.0/24") {
		t.Errorf("n1 has no route to the podCIDR that n2 got meanwhile:\n%s", text)
	}
	control.Remove(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n3"}})
	for _, n := range []*cluster.Node{n1, n2} {
		awaitPeers(t, n, 1)
	}
	for _, p := range pings {
		p.end(t)
	}
	stream.end(t)
	for _, call := range control.Calls() {
		if call != "GET /api/v1/nodes" && call != "GET /api/v1/nodes watch" {
			t.Errorf("flatnetd asked the API server for %s", call)
		}
	}
}
