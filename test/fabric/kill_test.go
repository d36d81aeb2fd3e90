package fabric_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// TestKill: kill -9 and restart of flatnetd, of each by itself and of all at
// once, loses no packet and resets no connection; a restart changes nothing at
// all.
func TestKill(t *testing.T) {
	for _, c := range []struct {
		mode     string
		topology topology
		peer     string
	}{{"direct", topologies[0], "n2"}, {"vxlan", topologies[0], "n2"}, {"auto", topologies[2], "n3"}} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.topology, cluster.Dual)
			s.Start("--fabric", c.mode)
			one, two := placePod(t, s.Node("n1"), "one"), placePod(t, s.Node(c.peer), "two")
			node := placeNode(t, s.Node("n1"))
			var pings []*pinging
			var streams []*streaming
			for _, ipv6 := range s.families.Each() {
				pings = append(pings, one.ping(t, two, ipv6))
				streams = append(streams, one.stream(t, two, ipv6), two.stream(t, one, ipv6))
			}
			pings = append(pings, node.ping(t, two, false))
			rounds := 5
			if pace.Slow() {
				rounds = 2
			}
			for round := range rounds {
				for _, n := range s.Nodes {
					n.Kill()
					n.StartAgain()
					n.WaitReady()
				}
				for _, n := range s.Nodes {
					n.Kill()
				}
				// Pods start and stop without flatnetd as well.
				other := placePod(t, s.Node("n1"), fmt.Sprint("other", round))
				other.reaches(t, two, false)
				other.reaches(t, two, true)
				other.pod.Delete()
				// At any time, also while it works on its first sync.
				for _, n := range s.Nodes {
					n.StartAgain()
					time.Sleep(time.Duration(round) * 15 * time.Millisecond)
					n.Kill()
				}
				for _, n := range s.Nodes {
					n.StartAgain()
				}
				for _, n := range s.Nodes {
					n.WaitReady()
				}
			}
			for _, p := range pings {
				p.end(t)
			}
			for _, stream := range streams {
				stream.end(t)
			}
		})
	}
}

// awaitAllTasks waits until a flatnetd has looked at everything once.
func awaitAllTasks(t *testing.T, n *cluster.Node) {
	t.Helper()
	await(t, "flatnetd on "+n.Name+" to have looked at everything", func() error {
		m := n.Metrics()
		for _, task := range []string{"join", "pods", "host", "install", "collect"} {
			if m[`flatnet_task_duration_seconds_count{task="`+task+`"}`] == 0 {
				return fmt.Errorf("task %s was not done", task)
			}
		}
		return nil
	})
}

// TestRestartChangesNothing: neither the kernel nor a watcher of the plugin's
// files sees that flatnetd was ended, killed, and started again.
func TestRestartChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[2], cluster.Dual)
	s.Start()
	n := s.Node("n1")
	pod := placePod(t, n, "pod")
	files := []string{n.Conflist(), n.ConfDir, n.BinDir, filepath.Join(n.BinDir, "flatnet"), filepath.Join(n.BinDir, "flatnet-ipam")}
	awaitAllTasks(t, n)
	kernel, disk := everything(t, n), modified(t, files...)
	watch := watchKernel(t, n)
	for range 2 {
		n.Restart()
		n.Kill()
		n.StartAgain()
		n.WaitReady()
		// The first look at everything is over with the collection.
		awaitAllTasks(t, n)
	}
	if seen := watch.seen(t); len(seen) > 0 {
		t.Errorf("the kernel told of changes:\n%s", strings.Join(seen, "\n"))
	}
	if now := everything(t, n); now != kernel {
		t.Errorf("the kernel's state has changed:%s", differing(kernel, now))
	}
	if now := modified(t, files...); now != disk {
		t.Errorf("files have changed:%s", differing(disk, now))
	}
	if strings.Contains(n.Log(), "repaired what somebody") {
		t.Error("flatnetd has repaired something")
	}
	must(t, pod.pod.Check())
	// Whoever watches sees changes, where there are some.
	n.Restart("--vxlan-id", "71", "--non-masquerade-cidrs", "192.0.2.0/24")
	if seen := strings.Join(watch.seen(t), "\n"); !strings.Contains(seen, "link") || !strings.Contains(seen, "nftables") {
		t.Errorf("other flags made no changes: %s", seen)
	}
}
