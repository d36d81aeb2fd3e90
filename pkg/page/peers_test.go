package page

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPeersInAFewLetters(t *testing.T) {
	known := &names{}
	known.add("n1")
	known.add("n2")
	way := func(present string) string {
		return `"ways":[{"podCIDR":"10.0.0.0/24","mode":"direct","present":` + present + `}]`
	}
	raw := `{"peers":[` + strings.Join([]string{
		`{"name":"n2","mode":"direct",` + way("true") + `,"health":{"state":"ok","sent":20,"roundTripMicroseconds":210}}`,
		`{"name":"lost","mode":"vxlan",` + way("true") + `,"health":{"state":"lost","sent":20,"lost":20,"since":"2026-01-01T00:00:00Z"}}`,
		`{"name":"missing","mode":"direct",` + way("false") + `,"health":{"state":"ok"}}`,
		`{"name":"none","mode":"none","ways":[{"podCIDR":"10.0.0.0/24","mode":""}]}`,
		`{"name":"full","mode":"mixed",` + way("true") + `,"health":{"state":"ok","sent":20,"fullSize":"lost"}}`,
		`{"name":"lossy","mode":"direct",` + way("true") + `,"health":{"state":"lossy","sent":20,"lost":3}}`,
		`{"name":"waiting","mode":"waiting","ways":[]}`,
		`{"name":"silent","mode":"direct",` + way("true") + `,"health":{"state":"silent"}}`,
		`{"name":"unknown","mode":"direct",` + way("true") + `,"health":{"state":"unknown"}}`,
		`{"name":"old","mode":"direct",` + way("true") + `}`,
		`{"name":"newer","mode":"geneve",` + way("true") + `,"health":{"state":"something"}}`,
		`{"name":"routed","mode":"bgp",` + way("true") + `,"health":{"state":"ok","sent":20}}`,
	}, ",") + `]}`
	said, err := condensePeers([]byte(raw), known, false)
	if err != nil {
		t.Fatal(err)
	}
	r := said.(peerRow)
	if r.States != "-oxmnfywsuuuo" || r.Modes != "-dvd-md-ddd-b" {
		t.Errorf("states %q, modes %q", r.States, r.Modes)
	}
	if r.Trips[1] != 210 || r.Losses[2] != (loss{20, 20, "2026-01-01T00:00:00Z"}) || r.Losses[6].Lost != 3 || r.Losses[1] != (loss{}) {
		t.Errorf("trips %v, losses %v", r.Trips, r.Losses)
	}
	if got := strings.Join(known.all, " "); got != "n1 n2 lost missing none full lossy waiting silent unknown old newer routed" {
		t.Error(got)
	}
	if len(r.Ways) != 12 || r.Ways[0].Ways[0].PodCIDR != "10.0.0.0/24" {
		t.Errorf("ways %v", r.Ways)
	}
}

// With many peers the ways are left out, unless one node alone is asked.
func TestWaysOfManyPeers(t *testing.T) {
	var peers []map[string]any
	for range mostWays + 1 {
		peers = append(peers, map[string]any{"name": strings.Repeat("n", len(peers)+1), "mode": "direct"})
	}
	raw, err := json.Marshal(map[string]any{"peers": peers})
	if err != nil {
		t.Fatal(err)
	}
	for single, want := range map[bool]int{false: 0, true: mostWays + 1} {
		said, err := condensePeers(raw, &names{}, single)
		if err != nil || len(said.(peerRow).Ways) != want {
			t.Errorf("%v: %d ways, %v", single, len(said.(peerRow).Ways), err)
		}
	}
}
