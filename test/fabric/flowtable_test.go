package fabric_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/test/cluster"
)

// TestFlowtable: somebody else's flowtable takes pods' connections past the rules
// of a node. They live through all that flatnetd does, and a pod that goes takes
// its own with it.
func TestFlowtable(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start("--fabric", "direct")
	n := s.Node("n1")
	one, two := placePod(t, n, "one"), placePod(t, s.Node("n2"), "two")
	rules := fmt.Sprintf(`table inet other {
	flowtable fast { hook ingress priority 0; devices = { eth0, %s }; }
	chain forward { type filter hook forward priority 0; policy accept; meta l4proto { tcp, udp } flow add @fast; }
}`, one.pod.HostInterface)
	if out, err := n.Output("sh", "-c", "nft -f - <<X\n"+rules+"\nX\n"); err != nil {
		t.Skipf("this kernel has no flowtables: %v%s", err, out)
	}
	if _, err := exec.LookPath("conntrack"); err != nil {
		t.Skip("the program conntrack is missing (Debian: apt-get install conntrack)")
	}
	ping := one.ping(t, two, true)
	// offload starts TCP both ways, besides the pings' UDP, and awaits the flowtable.
	offload := func() (end func()) {
		t.Helper()
		there, back := one.stream(t, two, false), two.stream(t, one, true)
		await(t, "flows to be in the flowtable", func() error {
			if count := offloaded(t, n); count < 3 {
				return fmt.Errorf("%d are", count)
			}
			return nil
		})
		return func() { there.end(t); back.end(t) }
	}
	end := offload()
	n.Kill()
	n.StartAgain()
	n.WaitReady()
	end()
	t.Run("routes are flushed", func(t *testing.T) {
		// The kernel's own doing, with anybody's routes: `ip route del` and `add`.
		if v, known := requirements.ParseRelease(requirements.Running{}.Release()); known && v.Less(requirements.Version{Major: 5, Minor: 13}) {
			t.Skip("before Linux 5.13 a flowtable never lets go of a route that was removed: TCP through it stands still for good")
		}
		end := offload()
		get(n.Output("sh", "-c", "ip route flush table main proto 70; ip -6 route flush table main proto 70; true"))(t)
		one.awaitReach(t, two, false)
		one.awaitReach(t, two, true)
		end()
	})
	ping.restored() // it may have missed what was sent without a route
	ping.end(t)

	// What the flowtable knows of the pod must not keep its interface, nor meet
	// its successor.
	link := one.pod.HostInterface
	one.pod.Delete()
	if text, err := n.Output("ip", "link", "show", link); err == nil {
		t.Errorf("after DEL there is\n%s", text)
	}
	next := placePod(t, n, "next")
	for _, ipv6 := range s.families.Each() {
		next.reaches(t, two, ipv6)
		two.reaches(t, next, ipv6)
	}
	n.Stop()
	get(n.Flatnetd("cleanup"))(t)
	if text := get(n.Output("nft", "list", "ruleset"))(t); !strings.Contains(text, "flow add @fast") || strings.Contains(text, "flatnet") {
		t.Errorf("after cleanup, the ruleset is\n%s", text)
	}
}

// offloaded counts the flows that a node's flowtables have taken over.
func offloaded(t *testing.T, n *cluster.Node) (count int) {
	t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		count += strings.Count(get(n.Output("conntrack", "-L", "-f", family))(t), "[OFFLOAD]")
	}
	return count
}
