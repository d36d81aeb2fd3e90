package agent

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/feature"
)

// peers is the feature that tells how the other nodes are reached. It changes nothing.
type peers struct {
	*feature.Shared
	changed map[string]peerChange
	modes   *prometheus.GaugeVec
}

// peerChange is when the way to a peer was last another.
type peerChange struct {
	peer *fabric.Peer // as it was planned last
	at   time.Time
}

func newPeers(s *feature.Shared) *peers {
	return &peers{Shared: s, changed: map[string]peerChange{}, modes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "flatnet_peers", Help: "Other nodes by how their pods are reached: direct, bgp (by routes that routers tell of), vxlan, mixed (by family), none (there is no way), waiting (no podCIDR yet).",
	}, []string{"mode"})}
}

func (f *peers) feature() feature.Feature {
	counted := func(name, help string, count func(*fabric.Engine) (present, desired int)) feature.Gauge {
		return feature.Gauge{
			Description: prometheus.NewDesc(name, help, []string{"state"}, nil),
			Read: func(_ context.Context, tell func(float64, ...string)) {
				present, desired := count(f.Fabric)
				tell(float64(desired), "desired")
				tell(float64(present), "present")
			},
		}
	}
	return feature.Feature{
		Follow:  f.follow,
		Status:  func(context.Context) feature.Part { return f.status().part() },
		Metrics: []prometheus.Collector{f.modes},
		Gauges: []feature.Gauge{
			counted("flatnet_fabric_objects", "Objects of the fabric (routes, tunnel and what is on it) that are desired, and that are present.", (*fabric.Engine).Present),
			counted("flatnet_routes", "Routes to other nodes' pods that are desired, and that are present.", (*fabric.Engine).PresentRoutes),
		},
	}
}

func (f *peers) follow(n feature.News) error {
	if n == feature.FabricJoined {
		f.count()
		f.note()
	}
	return nil
}

func (f *peers) count() {
	counts := map[string]int{"direct": 0, "bgp": 0, "vxlan": 0, "mixed": 0, "none": 0, "waiting": 0}
	for _, peer := range f.Plan.Peers {
		counts[modeOf(peer.Ways)]++
	}
	for mode, n := range counts {
		f.modes.WithLabelValues(mode).Set(float64(n))
	}
}

// modeOf sums up how a peer is reached.
func modeOf(ways []fabric.Way) string {
	if len(ways) == 0 {
		return "waiting"
	}
	mode := ways[0].Mode
	for _, w := range ways {
		if w.Mode == "" {
			return "none"
		}
		if w.Mode != mode {
			mode = "mixed"
		}
	}
	return string(mode)
}

// note logs how peers are reached, where that is new.
func (f *peers) note() {
	now := time.Now()
	joined, left := 0, 0
	for _, p := range f.Plan.Peers {
		before, was := f.changed[p.Name]
		if was && before.peer == p {
			continue
		}
		if was && slices.Equal(before.peer.Ways, p.Ways) {
			f.changed[p.Name] = peerChange{p, before.at}
			continue
		}
		f.changed[p.Name] = peerChange{p, now}
		if joined++; joined <= mostPeersLogged {
			f.Log.Info("peer joined", "peer", p.Name, "ways", describeWays(p.Ways))
		}
	}
	if len(f.changed) > len(f.Plan.Peers) {
		present := make(map[string]bool, len(f.Plan.Peers))
		for _, p := range f.Plan.Peers {
			present[p.Name] = true
		}
		for name := range f.changed {
			if present[name] {
				continue
			}
			delete(f.changed, name)
			if left++; left <= mostPeersLogged {
				f.Log.Info("peer left", "peer", name)
			}
		}
	}
	if joined > mostPeersLogged || left > mostPeersLogged {
		f.Log.Info("peers changed", "joined", joined, "left", left)
	}
}

// mostPeersLogged bounds the lines for one change of the list of nodes.
const mostPeersLogged = 20

func describeWays(ways []fabric.Way) string {
	text := ""
	for i, w := range ways {
		if i > 0 {
			text += ", "
		}
		mode := string(w.Mode)
		if mode == "" {
			mode = "no way"
		}
		text += fmt.Sprintf("%s %s", w.PodCIDR, mode)
		if w.Via.IsValid() {
			text += " via " + w.Via.String()
		}
		text += moreHops(w)
	}
	return text
}

// moreHops is how many next hops a way has besides the first, for people; nothing for none.
func moreHops(w fabric.Way) string {
	if more := len(w.Hops.All()) - 1; more > 0 {
		return fmt.Sprintf(" and %d more", more)
	}
	return ""
}

// PeersStatus is how the other nodes are reached.
type PeersStatus struct {
	Objects Objects      `json:"objects"`
	Peers   []PeerStatus `json:"peers"`
}

// Objects counts what the fabric consists of.
type Objects struct {
	Desired int `json:"desired"`
	Present int `json:"present"`
}

// PeerStatus is another node as this one sees it.
type PeerStatus struct {
	Name    string      `json:"name"`
	Mode    string      `json:"mode"` // direct, bgp, vxlan, mixed, none, waiting
	Ways    []WayStatus `json:"ways"`
	Changed time.Time   `json:"changed"` // when the way was last another
	// Health sums up that of the ways: the worst of their states.
	Health *HealthStatus `json:"health,omitempty"`
}

// HopStatus is one of several next hops.
type HopStatus struct {
	Via  netip.Addr `json:"via"`
	Link string     `json:"link"`
}

func hopsOf(w fabric.Way) (all []HopStatus) {
	hops := w.Hops.All()
	if len(hops) < 2 {
		return nil
	}
	for _, h := range hops {
		all = append(all, HopStatus{h.Gateway, h.Link})
	}
	return all
}

// WayStatus is how the pods of one podCIDR are reached.
type WayStatus struct {
	PodCIDR netip.Prefix `json:"podCIDR"`
	Mode    fabric.Mode  `json:"mode"` // direct, bgp, vxlan, or "" where there is no way
	Via     netip.Addr   `json:"via,omitzero"`
	Link    string       `json:"link,omitempty"`
	Hops    []HopStatus  `json:"hops,omitempty"` // where there are several next hops, all of them
	Present bool         `json:"present"`        // the route is in the kernel
	// Health is that of this way alone.
	Health *HealthStatus `json:"health,omitempty"`
}

func (f *peers) status() PeersStatus {
	s := PeersStatus{Peers: []PeerStatus{}}
	if f.Plan == nil {
		return s
	}
	s.Objects.Present, s.Objects.Desired = f.Fabric.Present()
	for _, p := range f.Plan.Peers {
		peer := PeerStatus{Name: p.Name, Mode: modeOf(p.Ways), Ways: []WayStatus{}, Changed: f.changed[p.Name].at}
		for _, w := range p.Ways {
			peer.Ways = append(peer.Ways, WayStatus{PodCIDR: w.PodCIDR, Mode: w.Mode, Via: w.Via, Link: w.Link, Hops: hopsOf(w), Present: w.Mode != "" && f.Fabric.HasRoute(w.PodCIDR), Health: wayHealth(f.Prober, w.PodCIDR)})
		}
		peer.Health = sumHealth(peer.Ways)
		s.Peers = append(s.Peers, peer)
	}
	return s
}

func (s PeersStatus) part() feature.Part {
	part := feature.Part{Document: s, Brief: s.brief(), Rows: []feature.Row{{Name: "fabric objects", Value: fmt.Sprintf("%d of %d present", s.Objects.Present, s.Objects.Desired)}}}
	if len(s.Peers) > 0 {
		part.Table = s.print
	}
	return part
}

func (s PeersStatus) print(w io.Writer, now time.Time) {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "PEER\tPODCIDR\tMODE\tVIA\tDEV\tROUTE\tPROBES\tCHANGED")
	for _, p := range s.Peers {
		if len(p.Ways) == 0 {
			fmt.Fprintf(table, "%s\t-\twaiting for podCIDR\t-\t-\t-\t-\t%s\n", p.Name, since(p.Changed, now))
		}
		for _, way := range p.Ways {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, way.PodCIDR, dash(string(way.Mode)), dash(way.vias()), dash(way.Link), presence(way), way.Health.text(), since(p.Changed, now))
		}
	}
	table.Flush()
}

// vias are the next hops, in a word.
func (w WayStatus) vias() string {
	if len(w.Hops) == 0 {
		return viaText(w.Via)
	}
	var texts []string
	for _, h := range w.Hops {
		texts = append(texts, h.Via.String())
	}
	return strings.Join(texts, ",")
}

func viaText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func presence(w WayStatus) string {
	switch {
	case w.Present:
		return "present"
	case w.Mode == "":
		return "-"
	}
	return "MISSING"
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
