package fabric_test

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// used is how many addresses of each family a node's pods have.
func used(n *cluster.Node) string {
	text := ""
	for _, u := range n.Status().Pods {
		text += fmt.Sprintf("%s: %d ", u.Family, u.Used)
	}
	return text
}

// TestCollect: a pod whose namespace is gone without DEL leaves nothing; one
// whose namespace is in use stays, though it has no name any more.
func TestCollect(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start("--collect", "1s")
	n := s.Node("n1")
	stays := placePod(t, n, "stays")
	intact := ours(t, n)
	crashed, hidden := n.Pod("crashed"), n.Pod("hidden")
	process := exec.Command("sleep", "60")
	wait := get(hidden.Start(process))(t)
	if got := used(n); got != "IPv4: 3 IPv6: 3 " {
		t.Errorf("addresses used: %s", got)
	}
	for _, p := range []*cluster.Pod{crashed, hidden} {
		must(t, p.Namespace.Delete())
	}
	await(t, "the crashed pod's addresses to be freed", func() error {
		if got := used(n); got != "IPv4: 2 IPv6: 2 " {
			return fmt.Errorf("addresses used: %s", got)
		}
		return nil
	})
	// It has looked at the hidden one more than once.
	time.Sleep(2500 * time.Millisecond)
	if got := used(n); got != "IPv4: 2 IPv6: 2 " {
		t.Errorf("a pod whose namespace has a process was collected: %s", got)
	}
	get(n.Output("ip", "link", "show", hidden.HostInterface))(t)
	must(t, process.Process.Kill())
	_ = wait() // it was killed
	await(t, "the hidden pod's addresses to be freed", func() error {
		if got := used(n); got != "IPv4: 1 IPv6: 1 " {
			return fmt.Errorf("addresses used: %s", got)
		}
		return nil
	})
	if got := n.Metrics()["flatnet_collected_total"]; got != 2 {
		t.Errorf("flatnet_collected_total is %v, want 2", got)
	}
	if now := ours(t, n); now != intact {
		t.Errorf("the node is not as it was before those pods:%s", differing(intact, now))
	}
	must(t, stays.pod.Check())
	placePod(t, s.Node("n2"), "two").reaches(t, stays, true)
}
