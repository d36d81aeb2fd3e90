package kubectl

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/fastpath"
)

// What flatnetd says today is understood: the fields are called alike on both sides.
func TestReadsTodaysAgent(t *testing.T) {
	way := agent.WayStatus{PodCIDR: netip.MustParsePrefix("10.244.2.0/24"), Mode: fabric.Direct, Present: true}
	gone := way
	gone.Present = false
	said := agent.Status{
		Head:         agent.Head{Node: "n1", Version: "v1", Since: time.Unix(1000, 0).UTC(), NotReady: "why"},
		FabricStatus: agent.FabricStatus{Fabric: fabric.Auto, PodMTU: 1450, Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.1")}},
		PodsStatus:   agent.PodsStatus{Pods: []agent.Usage{{Family: "IPv4", Total: 253, Used: 12, Outside: 2}, {Family: "IPv6", Used: 13}}},
		PeersStatus: agent.PeersStatus{Objects: agent.Objects{Desired: 9, Present: 8}, Peers: []agent.PeerStatus{
			{Name: "n2", Mode: "vxlan", Ways: []agent.WayStatus{way}}, {Name: "n3", Mode: "direct", Ways: []agent.WayStatus{way, gone}, Health: &agent.HealthStatus{State: "ok", FullSize: "lost"}}, {Name: "n4", Mode: "direct"},
		}},
		FastPathStatus: agent.FastPathStatus{FastPath: agent.FastPath{
			Wanted: "auto", Datapath: "ebpf", Skipped: []fastpath.Skipped{{Interface: "veth1", Reason: "r"}}, Without: []string{"a/b"}, Flows: 3, Counts: fastpath.Counts{Hits: 8, Misses: 2},
		}},
		BGPSummary:      agent.BGPSummary{BGP: &agent.BGPCounts{Peers: 2, Established: 1, Announced: 3, Learned: 4}},
		BalancersStatus: agent.BalancersStatus{LoadBalancer: &agent.BalancersSummary{Leader: "n3", Here: 1, Elsewhere: 2, Nobody: 4}},
		ProblemsStatus: agent.ProblemsStatus{Problems: []agent.Trouble{
			{Kind: "sysctl", Node: "n1", Object: "o", Reason: "r", Advice: "a", Follows: []agent.Trouble{{Kind: "task", Reason: "s", Advice: "b"}}},
		}},
	}
	raw, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAnswer(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := answer{
		Node: "n1", Version: "v1", Since: time.Unix(1000, 0).UTC(), NotReady: "why", Fabric: "auto", PodMTU: 1450, Addresses: []string{"172.30.0.1"}, PodCIDRs: nil,
		Pods: []usage{{Family: "IPv4", Used: 12, Total: 253, Outside: 2}, {Family: "IPv6", Used: 13}}, Objects: objects{9, 8},
		Joined:   []group{{"direct", 2, nil}, {"vxlan", 1, []string{"n2"}}},
		Missing:  &group{"", 1, []string{"n3"}},
		Unwell:   &group{"", 1, []string{"n3"}},
		DataPath: &dataPath{Wanted: "auto", Path: "ebpf", Flows: 3, Hits: 8, Misses: 2, Without: []string{"a/b"}, Skipped: []skipped{{"veth1", "r"}}},
		BGP:      &sessions{2, 1, 3, 4}, LoadBalancer: &answering{"n3", 1, 2, 4},
		Problems: []trouble{
			{Kind: "sysctl", Node: "n1", Object: "o", Reason: "r", Advice: "a", Follows: []trouble{{Kind: "task", Reason: "s", Advice: "b"}}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if n := got.attached(); n != 14 {
		t.Errorf("%d pods are attached", n)
	}
}

// The brief answer has what is made here of a long one.
func TestReadsBriefAnswer(t *testing.T) {
	brief := agent.BriefPeers{Objects: agent.Objects{Desired: 2, Present: 1}, Joined: []agent.PeerGroup{{Mode: "direct", Peers: 9}, {Mode: "none", Peers: 1, Names: []string{"n7"}}}, Missing: &agent.PeerGroup{Peers: 1, Names: []string{"n8"}}}
	raw, err := json.Marshal(struct {
		agent.Head
		agent.BriefPeers
		agent.ProblemsStatus
	}{agent.Head{Ready: true}, brief, agent.ProblemsStatus{Problems: []agent.Trouble{}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAnswer(raw)
	if err != nil || len(got.unread) > 0 || fmt.Sprint(got.Joined, got.Objects, *got.Missing) != "[{direct 9 []} {none 1 [n7]}] {2 1} { 1 [n8]}" {
		t.Errorf("%+v, %v", got, err)
	}
}

// An agent of another version has fields that are new, gone, or otherwise now: what is
// known is read, and what cannot be is named.
func TestReadsOtherVersions(t *testing.T) {
	for _, c := range []struct {
		said   string
		unread []string
	}{
		{`{"ready":true,"problems":[],"future":{"a":[1]}}`, nil},
		{`{"version":"v9","ready":"yes","problems":[]}`, []string{"ready"}},
		{`{"version":"v9","ready":true,"problems":[],"joined":{"direct":3},"pods":7}`, []string{"joined", "pods"}},
		{`{"version":"v9"}`, []string{"problems", "ready"}},
	} {
		a, err := readAnswer([]byte(c.said))
		if err != nil || !slices.Equal(a.unread, c.unread) {
			t.Errorf("%s: unread are %v, want %v; %v", c.said, a.unread, c.unread, err)
		}
	}
	if _, err := readAnswer([]byte("ready")); err == nil {
		t.Error("what is no JSON is read")
	}
}
