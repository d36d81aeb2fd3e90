package agent

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/bgp"
	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// BGPStatus is how routers are spoken to, as `flatnetd status bgp` shows it.
type BGPStatus struct {
	ASN       uint32          `json:"asn"`
	RouterID  string          `json:"routerID"`
	Peers     []BGPPeerStatus `json:"peers"`
	Announced []netip.Prefix  `json:"announced"`
	Learned   int             `json:"learned"` // routes, of all peers together
	// Kept are routes that no peer has told yet in this run; they are kept for a while.
	Kept bool `json:"kept,omitempty"`
}

// BGPPeerStatus is a session.
type BGPPeerStatus struct {
	Name     string       `json:"name"`
	Address  string       `json:"address"`
	ASN      uint32       `json:"asn"`
	Families []bgp.Family `json:"families"`
	State    string       `json:"state"`
	Since    time.Time    `json:"since"`
	Reason   string       `json:"reason,omitempty"` // why it is not established
	// Announced are prefixes of the session's families, where it is established.
	Announced int          `json:"announced"`
	Received  int          `json:"received"`
	Accepted  int          `json:"accepted"`
	Refused   []BGPRefusal `json:"refused,omitempty"`
}

// BGPRefusal is why some of what a peer tells is not accepted.
type BGPRefusal struct {
	Reason  string       `json:"reason"`
	Count   int          `json:"count"`
	Example netip.Prefix `json:"example"`
}

func (f *routing) status() BGPStatus {
	s := BGPStatus{Peers: []BGPPeerStatus{}, Announced: []netip.Prefix{}}
	if f.wanted == nil {
		return s
	}
	d := f.wanted
	s.ASN, s.RouterID, s.Learned, s.Kept = d.Global.ASN, d.Global.RouterID, len(f.learned.Routes), f.table.Seeded()
	s.Announced = append(s.Announced, d.Announce.Prefixes...)
	for _, n := range d.Neighbours {
		p := BGPPeerStatus{Name: n.Name, Address: n.Interface, ASN: n.ASN, Families: n.Families, State: "idle", Received: f.table.Received(n.Name), Accepted: f.learned.Accepted[n.Name]}
		if n.Address.IsValid() {
			p.Address = n.Address.String()
		}
		if now := f.sessions[n.Name]; now != nil {
			p.State, p.Since = now.State, now.since
			if !now.Established {
				p.Reason = bgp.Why(now.State, now.reason, n, d.Global)
			} else {
				for _, prefix := range d.Announce.Prefixes {
					if slices.Contains(n.Families, message.FamilyOf(prefix.Addr())) {
						p.Announced++
					}
				}
			}
		}
		for _, reason := range slices.Sorted(maps.Keys(f.learned.Refused[n.Name])) {
			p.Refused = append(p.Refused, BGPRefusal{reason, f.learned.Refused[n.Name][reason], f.learned.Example[n.Name][reason]})
		}
		s.Peers = append(s.Peers, p)
	}
	return s
}

func (f *routing) serve(w http.ResponseWriter, r *http.Request) {
	if !f.on() {
		http.Error(w, errNoBGP.Error(), http.StatusNotFound)
		return
	}
	var s BGPStatus
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	if err := f.Do(ctx, func() { s = f.status() }); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, s)
}

// BGPSummary is the status of BGP within that of the node.
type BGPSummary struct {
	BGP *BGPCounts `json:"bgp,omitempty"`
}

// BGPCounts are its numbers.
type BGPCounts struct {
	Peers       int `json:"peers"`
	Established int `json:"established"`
	Announced   int `json:"announced"`
	Learned     int `json:"learned"`
}

func (s BGPStatus) counts() BGPCounts {
	c := BGPCounts{Peers: len(s.Peers), Announced: len(s.Announced), Learned: s.Learned}
	for _, p := range s.Peers {
		if p.State == established {
			c.Established++
		}
	}
	return c
}

const established = "established"

func (s BGPStatus) summary() BGPSummary {
	c := s.counts()
	return BGPSummary{&c}
}

func (s BGPSummary) part() feature.Part {
	c := s.BGP
	return feature.Part{Document: s, Rows: []feature.Row{{
		Name: "BGP", Value: fmt.Sprintf("%d of %d sessions established, %d prefixes announced, %d routes learned", c.Established, c.Peers, c.Announced, c.Learned),
	}}}
}

// Print writes the status for people.
func (s BGPStatus) Print(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "AS %d, router id %s\n\n", s.ASN, s.RouterID)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "PEER\tADDRESS\tAS\tSTATE\tSINCE\tANNOUNCED\tRECEIVED\tACCEPTED")
	for _, p := range s.Peers {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\n", p.Name, p.Address, p.ASN, p.State, since(p.Since, now), p.Announced, p.Received, p.Accepted)
	}
	table.Flush()
	for _, p := range s.Peers {
		if p.Reason != "" {
			fmt.Fprintf(w, "\n%s is not established: %s\n", p.Name, p.Reason)
		}
		for _, r := range p.Refused {
			fmt.Fprintf(w, "\n%s: %d not accepted, as %s: %s\n", p.Name, r.Count, r.Example, r.Reason)
		}
	}
	fmt.Fprintf(w, "\nannounced: %s\n", list(s.Announced))
	if s.Kept {
		fmt.Fprintln(w, "routes of a run before are kept until all peers have told theirs")
	}
}

// sessionPatience is how long a session may take before that is a problem.
const sessionPatience = 10 * time.Second

func (f *routing) problems() (all []problem.Problem) {
	add := func(kind problem.Kind, facts problem.Facts) {
		facts.Node = f.config.NodeName
		all = append(all, kind.Of(facts))
	}
	c, err := f.file.Config()
	if err != nil {
		reason := strings.ReplaceAll(strings.TrimPrefix(err.Error(), f.config.BGPConfig+": "), "\n", "; ")
		if c != nil {
			reason += "; what was read before stays"
		}
		add(problem.BGPConfig, problem.Facts{Object: "--bgp-config " + f.config.BGPConfig, Reason: reason})
	}
	if f.current != nil && f.current.WantsServices() && !f.canKnowServices() {
		add(problem.BGPConfig, problem.Facts{Object: "announce.services", Reason: "Services come from the Kubernetes API, which is not known", Advice: "give --kubeconfig, or leave announce.services out"})
	}
	if f.failure != "" {
		add(problem.BGPProgram, problem.Facts{Object: bgpProgram, Reason: strings.ReplaceAll(f.failure, "\n", "; ")})
	}
	s := f.status()
	for _, p := range s.Peers {
		if p.State != established && time.Since(p.Since) > sessionPatience {
			add(problem.BGPSession, problem.Facts{Object: fmt.Sprintf("peer %s (%s, AS %d)", p.Name, p.Address, p.ASN), Reason: p.Reason})
		}
		for _, r := range p.Refused {
			if r.Reason == bgp.RefusedOwn || r.Reason == bgp.RefusedDefault {
				add(problem.BGPRefused, problem.Facts{Object: "peer " + p.Name, Reason: fmt.Sprintf("announces %s, which is refused: %s", r.Example, r.Reason)})
			}
		}
	}
	if f.learned.Beyond > 0 {
		add(problem.BGPMaximum, problem.Facts{Object: "accept.maximumRoutes", Reason: fmt.Sprintf("%d routes are accepted, and %d more are not used", len(f.learned.Routes), f.learned.Beyond)})
	}
	return all
}

func (f *routing) gauges() []feature.Gauge {
	counted := func(name, help string, tell func(c BGPCounts, tell func(float64, ...string)), labels ...string) feature.Gauge {
		return feature.Gauge{
			Description: prometheus.NewDesc(name, help, labels, nil),
			Read:        func(_ context.Context, to func(float64, ...string)) { tell(f.status().counts(), to) },
		}
	}
	return []feature.Gauge{
		counted("flatnet_bgp_sessions", "BGP sessions that are desired, and that are established.", func(c BGPCounts, tell func(float64, ...string)) {
			tell(float64(c.Peers), "desired")
			tell(float64(c.Established), established)
		}, "state"),
		counted("flatnet_bgp_announced_prefixes", "Prefixes that BGP peers are told.", func(c BGPCounts, tell func(float64, ...string)) { tell(float64(c.Announced)) }),
		counted("flatnet_bgp_learned_routes", "Routes that were learned of BGP peers and accepted.", func(c BGPCounts, tell func(float64, ...string)) { tell(float64(c.Learned)) }),
	}
}
