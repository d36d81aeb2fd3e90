package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Status is what `flatnetd status -o json` prints.
type Status struct {
	Node       string         `json:"node"`
	Version    string         `json:"version"`
	Since      time.Time      `json:"since"` // when flatnetd began
	Ready      bool           `json:"ready"`
	NotReady   string         `json:"notReady,omitempty"` // why
	Source     string         `json:"source"`             // of the nodes: "kubernetes" or a file
	Fabric     fabric.Mode    `json:"fabric"`
	Tunnel     string         `json:"tunnel,omitempty"`
	Addresses  []netip.Addr   `json:"addresses"`
	PodCIDRs   []netip.Prefix `json:"podCIDRs"`
	PodMTU     int            `json:"podMTU"`
	Masquerade []string       `json:"masquerade"` // families
	// NotHeld says why established connections that are translated may be cut by a
	// flush of nftables' ruleset; "" where they survive it.
	NotHeld  string       `json:"translationNotHeld,omitempty"`
	ClampMSS bool         `json:"clampMSS"` // of TCP connections through the node
	Pods     []Usage      `json:"pods"`
	Objects  Objects      `json:"objects"`
	Peers    []PeerStatus `json:"peers"`
	// Services is how they are balanced; nil where they are not.
	Services *service.Summary `json:"services,omitempty"`
	// Leaving says why load balancers that ask --services-health are told to look for
	// another node; empty while the node stays, and where nobody is told.
	Leaving  string       `json:"leaving,omitempty"`
	Kernel   KernelStatus `json:"kernel"`
	Problems []Trouble    `json:"problems"`
}

// Objects counts what the fabric consists of.
type Objects struct {
	Desired int `json:"desired"`
	Present int `json:"present"`
}

// PeerStatus is another node as this one sees it.
type PeerStatus struct {
	Name    string      `json:"name"`
	Mode    string      `json:"mode"` // direct, vxlan, mixed, none, waiting
	Ways    []WayStatus `json:"ways"`
	Changed time.Time   `json:"changed"` // when the way was last another
}

// WayStatus is how the pods of one podCIDR are reached.
type WayStatus struct {
	PodCIDR netip.Prefix `json:"podCIDR"`
	Mode    fabric.Mode  `json:"mode"` // direct, vxlan, or "" where there is no way
	Via     netip.Addr   `json:"via,omitzero"`
	Link    string       `json:"link,omitempty"`
	Present bool         `json:"present"` // the route is in the kernel
}

// Trouble is a problem, what to do about it, and what follows from it.
type Trouble struct {
	Kind    string    `json:"kind"` // as docs/operations.md lists them
	Node    string    `json:"node,omitempty"`
	Object  string    `json:"object,omitempty"`
	Reason  string    `json:"reason"`
	Advice  string    `json:"advice"`
	Follows []Trouble `json:"follows,omitempty"` // none of these has any more
}

func troubleOf(p problem.Problem) Trouble {
	t := Trouble{Kind: p.Kind().String(), Node: p.Node(), Object: p.Object(), Reason: p.Reason(), Advice: p.Advice()}
	for _, f := range p.Follows() {
		t.Follows = append(t.Follows, troubleOf(f))
	}
	return t
}

// print writes a problem for people.
func (t Trouble) print(w io.Writer) {
	fmt.Fprintf(w, "  - %s [%s]\n    %s\n", problem.Sentence(t.Node, t.Object, t.Reason), t.Kind, t.Advice)
	var names []string
	for _, f := range t.Follows {
		names = append(names, problem.Consequence(f.Node, f.Object, f.Reason))
	}
	if text := problem.Consequences(names); text != "" {
		fmt.Fprintf(w, "    %s\n", text)
	}
}

func (a *Agent) status(ctx context.Context) Status {
	s := Status{
		Node: a.config.NodeName, Version: a.config.Version, Since: a.began, Source: a.sourceName(), Fabric: a.config.Fabric.Mode,
		Addresses: []netip.Addr{}, PodCIDRs: []netip.Prefix{}, Masquerade: []string{}, Pods: []Usage{}, Peers: []PeerStatus{}, Problems: []Trouble{},
	}
	s.Kernel = kernelStatus(a.report)
	reason := a.unready()
	if s.Ready = reason == nil; !s.Ready {
		s.NotReady = reason.Error()
	}
	for family, on := range map[string]bool{"IPv4": a.config.MasqueradeIPv4, "IPv6": a.config.MasqueradeIPv6} {
		if on && !a.report.Lacks(requirements.Masquerade) {
			s.Masquerade = append(s.Masquerade, family)
		}
	}
	if len(s.Masquerade) == 2 {
		s.Masquerade = []string{"IPv4", "IPv6"}
	}
	s.ClampMSS = a.config.ClampMSS && a.tablesPossible()
	if a.notHeld != nil {
		s.NotHeld = a.notHeld.Error()
	}
	if a.services != nil {
		summary := a.services.Summary()
		s.Services = &summary
		if a.config.ServicesHealth != "" {
			s.Leaving = *a.services.leaving.Load()
		}
	}
	if len(a.outsiders) > 0 {
		_ = a.findOutsiders() // that one has ended is no news otherwise; what it says then is from before
	}
	if usages, err := a.usages(ctx); err == nil && usages != nil {
		s.Pods = usages
	}
	for _, p := range a.currentProblems() {
		s.Problems = append(s.Problems, troubleOf(p))
	}
	if a.plan == nil {
		return s
	}
	for _, n := range a.accepted {
		if n.Name == a.config.NodeName {
			s.Addresses = append(s.Addresses, n.Addresses...)
		}
	}
	s.Tunnel, s.PodMTU = a.plan.Tunnel, a.plan.PodMTU
	s.PodCIDRs = append(s.PodCIDRs, a.plan.OwnPodCIDRs...)
	s.Objects.Present, s.Objects.Desired = a.engine.Present()
	for _, p := range a.plan.Peers {
		peer := PeerStatus{Name: p.Name, Mode: modeOf(p.Ways), Ways: []WayStatus{}, Changed: a.changed[p.Name].at}
		for _, w := range p.Ways {
			peer.Ways = append(peer.Ways, WayStatus{w.PodCIDR, w.Mode, w.Via, w.Link, w.Mode != "" && a.engine.HasRoute(w.PodCIDR)})
		}
		s.Peers = append(s.Peers, peer)
	}
	return s
}

// AskStatus asks the flatnetd of a state directory.
func AskStatus(ctx context.Context, stateDir string) (s Status, err error) {
	err = askAgent(ctx, stateDir, "/status", &s)
	return s, err
}

// AskServices asks the flatnetd of a state directory who serves what Service.
func AskServices(ctx context.Context, stateDir string) (s service.Status, err error) {
	err = askAgent(ctx, stateDir, "/status/services", &s)
	return s, err
}

// askAgent reads a JSON answer into what to points to.
func askAgent(ctx context.Context, stateDir, question string, to any) error {
	path := SocketPath(stateDir)
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://flatnetd"+question, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("asking flatnetd: %w: root may ask", err)
		}
		return fmt.Errorf("asking flatnetd: %w: no flatnetd runs with --state-dir %s; look at its log (journalctl -u flatnetd, or kubectl -n flatnet logs)", err, stateDir)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("asking flatnetd: %s", strings.TrimSpace(string(text)))
	}
	if err := json.NewDecoder(answer.Body).Decode(to); err != nil {
		return fmt.Errorf("reading flatnetd's answer: %w", err)
	}
	return nil
}

// Print writes the status for people.
func (s Status) Print(w io.Writer, now time.Time) {
	state := "ready"
	if !s.Ready {
		state = "NOT READY: " + s.NotReady
	}
	fmt.Fprintf(w, "node %s: %s (flatnetd %s, up %s)\n", s.Node, state, s.Version, since(s.Since, now))
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, value string) { fmt.Fprintf(table, "  %s\t%s\n", name, value) }
	row("nodes from", s.Source)
	text := string(s.Fabric)
	if s.Tunnel != "" {
		text += ", overlay on " + s.Tunnel
	}
	row("fabric", text)
	row("addresses", list(s.Addresses))
	row("podCIDRs", list(s.PodCIDRs))
	row("pod MTU", fmt.Sprint(s.PodMTU))
	row("masquerade", list(s.Masquerade))
	if s.NotHeld != "" {
		row("translations", "cut if somebody flushes nftables' ruleset: "+s.NotHeld)
	}
	if !s.ClampMSS {
		row("TCP segments", "not clamped to the MTU of routes")
	}
	for _, u := range s.Pods {
		text := fmt.Sprintf("%d of %s used, %d cooling", u.Used, amount(u.Total), u.Cooling)
		if u.Outside > 0 {
			text += fmt.Sprintf(", %d outside of the podCIDRs", u.Outside)
		}
		row(u.Family+" addresses", text)
	}
	row("fabric objects", fmt.Sprintf("%d of %d present", s.Objects.Present, s.Objects.Desired))
	if s.Services != nil {
		state := "rules as wanted"
		if !s.Services.Synced {
			state = "rules NOT as wanted"
		}
		row("Services", fmt.Sprintf("%d at %d addresses and ports, %s", s.Services.Services, s.Services.Fronts, state))
	}
	if s.Leaving != "" {
		row("load balancers", "told to look for another node: "+s.Leaving)
	}
	if len(s.Kernel.Missing) > 0 {
		var names []string
		for _, m := range s.Kernel.Missing {
			names = append(names, m.Name)
		}
		row("kernel", s.Kernel.Release+", without "+strings.Join(names, ", "))
	}
	table.Flush()
	if len(s.Peers) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(table, "PEER\tPODCIDR\tMODE\tVIA\tDEV\tROUTE\tCHANGED")
		for _, p := range s.Peers {
			if len(p.Ways) == 0 {
				fmt.Fprintf(table, "%s\t-\twaiting for podCIDR\t-\t-\t-\t%s\n", p.Name, since(p.Changed, now))
			}
			for _, way := range p.Ways {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, way.PodCIDR, dash(string(way.Mode)), dash(viaText(way.Via)), dash(way.Link), presence(way), since(p.Changed, now))
			}
		}
		table.Flush()
	}
	if len(s.Problems) == 0 {
		fmt.Fprintln(w, "\nno problems")
		return
	}
	fmt.Fprintf(w, "\nproblems: %d\n", len(s.Problems))
	for _, p := range s.Problems {
		p.print(w)
	}
}

// amount is a number of addresses for people, who do not read twenty digits.
func amount(n uint64) string {
	const billion = 1_000_000_000
	if n > billion {
		return "billions"
	}
	return fmt.Sprint(n)
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

func list[T any](items []T) string {
	if len(items) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(items), "[]")
}

// since is a duration for people: one or two units.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return d.String()
}
