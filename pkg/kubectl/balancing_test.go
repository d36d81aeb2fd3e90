package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/pkg/announce"
	"github.com/flatnet-cni/flatnet/pkg/loadbalancer"
	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// Sessions, data paths and addresses of load balancers are in the status of all nodes, as
// the agents say them today.
func TestStatusOfWhatSomeClustersDo(t *testing.T) {
	l := newTrialLab(t, 3)
	var waiting []loadbalancer.Waiting
	for i := range 12 {
		waiting = append(waiting, loadbalancer.Waiting{Name: fmt.Sprintf("shop/s%d", i), Reason: "no pool has one left"})
	}
	said := agent.Announcements{
		Node: "n3", Leader: "n3", Pools: []agent.PoolUsage{{Pool: "public", Family: "IPv4", Size: 16, Given: 2}}, Waiting: waiting,
		Members: []announce.Member{{Node: "n1"}, {Node: "n2", Leaving: "is being drained"}},
		Addresses: []announce.Answered{
			{IP: netip.MustParseAddr("203.0.113.1"), Services: []string{"shop/web"}, Node: "n1"},
			{IP: netip.MustParseAddr("203.0.113.2"), Services: []string{"shop/db", "shop/web"}, Nobody: "no node has an endpoint"},
		},
	}
	l.says = func(node string, s map[string]any) error {
		s["loadBalancer"] = agent.BalancersSummary{Leader: "n3"}
		path := agent.FastPath{Wanted: "auto", Datapath: "ebpf"}
		if node == "n2" {
			path = agent.FastPath{Wanted: "auto", Datapath: "kernel", Because: "the kernel has no tcx"}
		}
		s["fastPath"] = path
		if node != "n3" {
			s["bgp"] = agent.BGPCounts{Peers: 2, Established: 1}
		}
		return nil
	}
	l.server.Execute = func(ctx context.Context, e *apiserver.Execution) {
		if strings.Join(e.Command, " ") != "flatnetd status announcements -o json" {
			l.execute(ctx, e)
			return
		}
		if e.Pod != "flatnetd-n3" {
			t.Errorf("%s is asked, and n3 gives addresses", e.Pod)
		}
		e.Out, _ = json.Marshal(said)
	}
	exit, out, errOut := l.run(t, "status")
	if exit != exitFine || errOut != "" {
		t.Errorf("exit status %d, %s", exit, errOut)
	}
	for _, part := range []string{
		"  note: data path: ebpf at 2 nodes, kernel, because the kernel has no tcx at n2\n",
		"DATAPATH  BGP     PROBLEMS\n", "ebpf      1 of 2  0\n", "kernel    1 of 2  0\n", "ebpf      -       0\n",
		`
load balancers, as n3 has them; addresses are given by: n3
POOL    FAMILY  GIVEN  OF
public  IPv4    2      16
  answer: n1 for 1, n2 for 0 (is being drained)
  by nobody: 203.0.113.2 (shop/db,shop/web): no node has an endpoint
  waits: shop/s0: no pool has one left
`, "  waits: 2 more, which -o json has\n",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	_, out, _ = l.run(t, "status", "-o", "json")
	var all overview
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	if b := all.LoadBalancer; b == nil || len(b.Waiting) != 12 || b.Answers[1].Nobody == "" || b.Of != "n3" {
		t.Errorf("got %+v", b)
	}
	if n := all.Nodes[0]; n.BGP.Established != 1 || n.DataPath.Path != "ebpf" {
		t.Errorf("got %+v", n)
	}
}
