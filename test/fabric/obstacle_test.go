package fabric_test

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// TestTunnelIsInTheWay: what somebody else has that the tunnel needs is told as one
// problem with its name, what to do, and what follows from it; in the log it is one
// line, however often it is tried again. It is left alone, and when it is gone
// everything is made.
func TestTunnelIsInTheWay(t *testing.T) {
	for _, c := range []struct {
		name, setup, undo string
		kind, says        string
		advice            string
	}{
		{"number", "ip link add vxlan0 type vxlan id 70 dstport 4789 local 172.30.0.1; ip link set vxlan0 up", "ip link del vxlan0",
			"vxlan-number", "VXLAN device vxlan0: has VNI 70 at UDP port 4789", "`ip link del vxlan0`; or give flatnet another number, the same on all nodes: --vxlan-id"},
		{"external", "ip link add ext0 type vxlan external dstport 4789; ip link set ext0 up", "ip link del ext0",
			"vxlan-port", "VXLAN device ext0: has UDP port 4789 in another mode", "--vxlan-port"},
		{"name", "ip link add flatnet.vx type bridge; ip link set flatnet.vx up", "ip link del flatnet.vx",
			"vxlan-name", "interface flatnet.vx: is of type bridge and not flatnet's", "--vxlan-device"},
		{"program", "", "", "vxlan-port", "UDP port 4789: is in use by another program", "`ss -lunp 'sport = :4789'`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, topologies[2], cluster.Dual)
			n := s.Node("n1")
			undo := func() { get(n.Output("sh", "-ec", c.undo))(t) } // which fails if it is gone
			if c.setup == "" {
				undo = holdPort(t, n)
			} else {
				get(n.Output("sh", "-ec", c.setup))(t)
			}
			s.WriteNodes()
			for _, n := range s.Nodes {
				n.Start()
			}
			for _, n := range s.Nodes[1:] {
				n.WaitReady()
			}
			await(t, "the making of the tunnel to be tried again", func() error {
				if tries := n.Metrics()[`flatnet_task_failures_total{task="verify"}`]; tries < 3 {
					return fmt.Errorf("%v tries", tries)
				}
				return nil
			})
			status := n.Status()
			if len(status.Problems) != 1 || status.Problems[0].Kind != c.kind || !strings.Contains(status.NotReady, c.says) {
				t.Fatalf("not ready because %q, with the problems %+v", status.NotReady, status.Problems)
			}
			follow := len(status.Problems[0].Follows)
			if metrics := n.Metrics(); follow < 5 || metrics["flatnet_problems"] != 1 || metrics["flatnet_problem_consequences"] != float64(follow) {
				t.Errorf("%d things follow, by the metrics %v from %v problems", follow, metrics["flatnet_problem_consequences"], metrics["flatnet_problems"])
			}
			text := problemsOf(get(n.Flatnetd("status"))(t))
			if want := fmt.Sprintf(`(?s)^1\n  - node n1: %s[^\n]* \[%s\]\n    [^\n]*%s[^\n]*\n    and %d things that follow from it: node n1: ip addr add [^\n]*; and %d more\n$`,
				regexp.QuoteMeta(c.says), c.kind, regexp.QuoteMeta(c.advice), follow, follow-3); !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("the status says\n%s\nwant %s", text, want)
			}
			log := n.Log()
			if lines := strings.Count(log, "msg=problem "); lines != 1 || strings.Contains(log, "no such device") || strings.Contains(log, "repaired what somebody") {
				t.Errorf("the problem is logged %d times:\n%s", lines, log)
			}
			undo()
			n.WaitReady()
			one, three := placePod(t, n, "one"), placePod(t, s.Node("n3"), "three")
			one.awaitReach(t, three, false)
			await(t, "the end of the problem", func() error {
				if problems := n.Status().Problems; len(problems) > 0 {
					return fmt.Errorf("problems remain: %v", problems)
				}
				return nil
			})
			if log := n.Log(); strings.Count(log, `msg="problem is over"`) != 1 {
				t.Errorf("the problem's end is not logged once:\n%s", log)
			}
		})
	}
}

// holdPort has the tunnel's port, as a program of the node's might.
func holdPort(t *testing.T, n *cluster.Node) (release func()) {
	t.Helper()
	var socket net.PacketConn
	must(t, n.Do(func() (err error) {
		socket, err = net.ListenPacket("udp4", ":4789")
		return err
	}))
	t.Cleanup(func() { socket.Close() })
	return func() { must(t, socket.Close()) }
}
