package kubectl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// answer is what is read of `flatnetd status -o json`. Agents may be older or newer than
// this program: every field is read by itself, and one that cannot be read is named.
type answer struct {
	Node     string
	Version  string
	Since    time.Time
	Ready    bool
	NotReady string
	Fabric   string
	PodMTU   int
	Pods     []usage
	// Addresses are the node's own, PodCIDRs those of its pods.
	Addresses []string
	PodCIDRs  []string
	Objects   objects
	Joined    []group
	Missing   *group
	Unwell    *group
	Problems  []trouble
	// What agents have that do it; nil with others.
	DataPath     *dataPath
	BGP          *sessions
	LoadBalancer *answering

	unread []string
}

// usage is how many addresses of a family pods have.
type usage struct {
	Family  string `json:"family"`
	Used    uint64 `json:"used"`
	Cooling uint64 `json:"cooling"`
	Total   uint64 `json:"total"`
	Outside uint64 `json:"outside"`
}

type objects struct {
	Desired int `json:"desired"`
	Present int `json:"present"`
}

// group is a number of peers that are joined in one way.
type group struct {
	Mode  string   `json:"mode,omitempty"`
	Peers int      `json:"peers"`
	Names []string `json:"names,omitempty"` // of the first of them
}

// trouble is a problem that an agent has.
type trouble struct {
	Kind    string    `json:"kind"`
	Node    string    `json:"node,omitempty"`
	Object  string    `json:"object,omitempty"`
	Reason  string    `json:"reason"`
	Advice  string    `json:"advice,omitempty"`
	Follows []trouble `json:"follows,omitempty"`
}

// peer is one line of the answer of an agent that gives no brief one.
type peer struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
	Ways []struct {
		Mode    string `json:"mode"`
		Present bool   `json:"present"`
	} `json:"ways"`
	Health health `json:"health"`
}

// health is what probes say of a peer or of a way to it; nothing where there are none.
type health struct {
	State     string `json:"state"`
	Sent      int    `json:"sent"`
	Lost      int    `json:"lost"`
	RoundTrip int64  `json:"roundTripMicroseconds"`
	FullSize  string `json:"fullSize"`
}

// unwell reports whether packets are lost.
func (h health) unwell() bool {
	return h.State == "lost" || h.State == "lossy" || h.FullSize == "lost"
}

func readAnswer(raw []byte) (a answer, err error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return a, fmt.Errorf("reading flatnetd's answer: %w", err)
	}
	var peers []peer
	known := map[string]any{
		"node": &a.Node, "version": &a.Version, "since": &a.Since, "ready": &a.Ready, "notReady": &a.NotReady,
		"fabric": &a.Fabric, "podMTU": &a.PodMTU, "pods": &a.Pods, "addresses": &a.Addresses, "podCIDRs": &a.PodCIDRs, "objects": &a.Objects,
		"joined": &a.Joined, "missing": &a.Missing, "unwell": &a.Unwell, "peers": &peers, "problems": &a.Problems,
		"fastPath": &a.DataPath, "bgp": &a.BGP, "loadBalancer": &a.LoadBalancer,
	}
	for name, to := range known {
		if field, is := fields[name]; is && json.Unmarshal(field, to) != nil {
			a.unread = append(a.unread, name)
		}
	}
	for _, name := range []string{"ready", "problems"} {
		if _, is := fields[name]; !is {
			a.unread = append(a.unread, name)
		}
	}
	slices.Sort(a.unread)
	if peers != nil && a.Joined == nil {
		a.Joined, a.Missing, a.Unwell = sumUp(peers)
	}
	return a, nil
}

const misreadAdvice = "use the kubectl-flatnet of the same version"

// misread says which fields of the answer this program does not understand.
func (a answer) misread(fields ...string) string {
	return fmt.Sprintf("flatnetd %s says in another way than this program knows: %s", a.Version, strings.Join(fields, ", "))
}

// mostNamed is how many peers of a group an agent names in its brief answer.
const mostNamed = 16

// sumUp makes of a line for each peer what a brief answer says.
func sumUp(peers []peer) (joined []group, missing, unwell *group) {
	add := func(g *group, name string) {
		if g.Peers++; len(g.Names) < mostNamed {
			g.Names = append(g.Names, name)
		}
	}
	var gone, losing group
	for _, p := range peers {
		at := slices.IndexFunc(joined, func(g group) bool { return g.Mode == p.Mode })
		if at < 0 {
			at = len(joined)
			joined = append(joined, group{Mode: p.Mode})
		}
		add(&joined[at], p.Name)
		if p.Health.unwell() {
			add(&losing, p.Name)
		}
		for _, w := range p.Ways {
			if w.Mode != "" && !w.Present {
				add(&gone, p.Name)
				break
			}
		}
	}
	slices.SortStableFunc(joined, func(a, b group) int { return cmp.Or(cmp.Compare(b.Peers, a.Peers), cmp.Compare(a.Mode, b.Mode)) })
	if len(joined) > 0 && joined[0].reached() {
		joined[0].Names = nil
	}
	if gone.Peers > 0 {
		missing = &gone
	}
	if losing.Peers > 0 {
		unwell = &losing
	}
	return joined, missing, unwell
}

// reached reports whether the peers are reached at all.
func (g group) reached() bool { return g.Mode != "none" && g.Mode != "waiting" }

// attached is how many pods have an address; one of both families counts once.
func (a answer) attached() (n uint64) {
	for _, u := range a.Pods {
		n = max(n, u.Used+u.Outside)
	}
	return n
}
