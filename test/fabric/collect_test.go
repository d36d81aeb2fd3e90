package fabric_test

import (
	"fmt"
	"os/exec"
	"testing"

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
	hidden := n.Pod("hidden")
	process := exec.Command("sleep", "infinity")
	wait := get(hidden.Start(process))(t)
	must(t, hidden.Namespace.Delete())
	// One after the other, so that it has looked at the hidden one more than once.
	const crashes = 3
	for i := range crashes {
		crashed := n.Pod(fmt.Sprintf("crashed%d", i))
		if got := used(n); got != "IPv4: 3 IPv6: 3 " {
			t.Errorf("addresses used: %s", got)
		}
		must(t, crashed.Namespace.Delete())
		await(t, "the crashed pod's addresses to be freed", func() error {
			if got := used(n); got != "IPv4: 2 IPv6: 2 " {
				return fmt.Errorf("addresses used: %s", got)
			}
			return nil
		})
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
	if got := n.Metrics()["flatnet_collected_total"]; got != crashes+1 {
		t.Errorf("flatnet_collected_total is %v, want %d", got, crashes+1)
	}
	if now := ours(t, n); now != intact {
		t.Errorf("the node is not as it was before those pods:%s", differing(intact, now))
	}
	must(t, stays.pod.Check())
	placePod(t, s.Node("n2"), "two").reaches(t, stays, true)
}
