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
	// Resumed says that peers are told what a run before told them, since it is not known
	// yet what there is to tell.
	Resumed bool `json:"resumed,omitempty"`
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
	Announced int `json:"announced"`
	// Own are what this peer is told of any family, where the configuration has announce
	// for it alone; else it is told what is in the status' Announced.
	Own      []netip.Prefix `json:"own,omitzero"`
	Received int            `json:"received"`
	Accepted int            `json:"accepted"`
	Refused  []BGPRefusal   `json:"refused,omitempty"`
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
	s.Resumed = f.resumed
	told := map[string]bgp.Announcement{}
	for _, a := range d.Announce {
		for _, name := range a.To {
			told[name] = a
		}
		if a.Name == "" {
			s.Announced = append(s.Announced, a.Prefixes...)
		}
	}
	for _, n := range d.Neighbours {
		p := BGPPeerStatus{Name: n.Name, Address: n.Interface, ASN: n.ASN, Families: n.Families, State: "idle", Received: f.table.Received(n.Name), Accepted: f.learned.Accepted[n.Name]}
		if n.Address.IsValid() {
			p.Address = n.Address.String()
		}
		announced := told[n.Name]
		if announced.Name != "" {
			p.Own = announced.Prefixes
		}
		if now := f.sessions[n.Name]; now != nil {
			p.State, p.Since = now.State, now.since
			if !now.Established {
				p.Reason = bgp.Why(now.State, now.reason, n, d.Global)
			} else {
				for _, prefix := range announced.Prefixes {
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
	fmt.Fprintln(w)
	remarks := false
	for _, p := range s.Peers {
		if p.Reason != "" {
			fmt.Fprintf(w, "%s is not established: %s\n", p.Name, p.Reason)
			remarks = true
		}
		for _, r := range p.Refused {
			fmt.Fprintf(w, "%s: %d not accepted, as %s: %s\n", p.Name, r.Count, r.Example, r.Reason)
			remarks = true
		}
	}
	if remarks {
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "announced: %s\n", list(s.Announced))
	for _, p := range s.Peers {
		if p.Own != nil {
			fmt.Fprintf(w, "to %s: %s\n", p.Name, list(p.Own))
		}
	}
	if s.Resumed {
		fmt.Fprintln(w, "that is what a run before announced, until nodes and Services are known")
	}
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
