package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/feature"
)

func TestBriefPeers(t *testing.T) {
	way := WayStatus{PodCIDR: netip.MustParsePrefix("10.244.2.0/24"), Mode: fabric.Direct, Present: true}
	gone := way
	gone.Present = false
	s := PeersStatus{Objects: Objects{40, 39}}
	for i := range 20 {
		s.Peers = append(s.Peers, PeerStatus{Name: fmt.Sprintf("v%d", i), Mode: "vxlan", Ways: []WayStatus{way}})
	}
	for i := range 30 {
		s.Peers = append(s.Peers, PeerStatus{Name: fmt.Sprintf("d%d", i), Mode: "direct", Ways: []WayStatus{way}})
	}
	s.Peers[33].Ways = []WayStatus{way, gone}
	s.Peers[1].Health, s.Peers[2].Health = &HealthStatus{State: "lost"}, &HealthStatus{State: "silent"}
	s.Peers = append(s.Peers, PeerStatus{Name: "w", Mode: "waiting"}, PeerStatus{Name: "n", Mode: "none", Ways: []WayStatus{{}}})
	d := document{parts: []feature.Part{s.part()}, brief: true, problems: ProblemsStatus{[]Trouble{}}}
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	const want = `"objects":{"desired":40,"present":39},"joined":[{"mode":"direct","peers":30},` +
		`{"mode":"vxlan","peers":20,"names":["v0","v1","v2","v3","v4","v5","v6","v7","v8","v9","v10","v11","v12","v13","v14","v15"]},` +
		`{"mode":"none","peers":1,"names":["n"]},{"mode":"waiting","peers":1,"names":["w"]}],"missing":{"peers":1,"names":["d13"]},"unwell":{"peers":1,"names":["v1"]},"problems":[]}`
	if !strings.HasSuffix(string(raw), want) {
		t.Errorf("got\n%s\nwant at the end\n%s", raw, want)
	}
}

// Peers that are not reached are named even where they are the most.
func TestBriefPeersWithoutWay(t *testing.T) {
	s := PeersStatus{Peers: []PeerStatus{{Name: "a", Mode: "none"}, {Name: "b", Mode: "none"}, {Name: "c", Mode: "vxlan"}}}
	b := s.brief()
	if got := fmt.Sprint(b.Joined); got != "[{none 2 [a b]} {vxlan 1 [c]}]" {
		t.Error(got)
	}
}

func TestBriefIsForMachines(t *testing.T) {
	for _, arguments := range [][]string{{"status", "--brief"}, {"status", "pods", "-o", "json", "--brief"}} {
		var said strings.Builder
		status := Main(t.Context(), "v1", arguments, func(string) string { return "" }, io.Discard, &said)
		if status != exitUsage || !strings.Contains(said.String(), "--brief is for `flatnetd status -o json` only") {
			t.Errorf("%v: exit status %d, %s", arguments, status, said.String())
		}
	}
}
