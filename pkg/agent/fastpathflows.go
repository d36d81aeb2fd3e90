package agent

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/fastpath"
)

// RememberedFlows is what `flatnetd flows` prints.
type RememberedFlows struct {
	Node string `json:"node"`
	// Datapath is ebpf or kernel, and Because why it is kernel: none is remembered then.
	Datapath string           `json:"datapath"`
	Because  string           `json:"because,omitempty"`
	Flows    []RememberedFlow `json:"flows"`          // those with the most bytes first
	More     int              `json:"more,omitempty"` // that are left out
}

// RememberedFlow is one that takes the fast path, with the pods of this node at its ends.
type RememberedFlow struct {
	fastpath.Flow
	FromPod string `json:"fromPod,omitempty"` // namespace/name
	ToPod   string `json:"toPod,omitempty"`
	// FromNode and ToNode are whose podCIDRs the ends are of.
	FromNode string `json:"fromNode,omitempty"`
	ToNode   string `json:"toNode,omitempty"`
	// FromInterface and ToInterface are where packets of the ends come from.
	FromInterface string `json:"fromInterface,omitempty"`
	ToInterface   string `json:"toInterface,omitempty"`
}

// FlowsWanted says which flows are asked for.
type FlowsWanted struct {
	Pod       string // namespace/name; "" is all
	Addresses string // of either end, separated by commas; "" is all
	Limit     int    // no more than these; 0 is all
}

// check says what is wrong with what was given.
func (wanted FlowsWanted) check() error {
	if _, err := wanted.addresses(); err != nil {
		return err
	}
	if wanted.Limit < 0 {
		return fmt.Errorf("--limit %d is less than none: 0 is all", wanted.Limit)
	}
	return nil
}

func (wanted FlowsWanted) addresses() (all []netip.Addr, err error) {
	if wanted.Addresses == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(wanted.Addresses, ",") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("--address %s: %q is no address: give one, or several separated by commas", wanted.Addresses, text)
		}
		all = append(all, a)
	}
	return all, nil
}

// ends says whose addresses are at the ends of flows.
type ends struct {
	pods  map[netip.Addr]string
	plan  *fabric.Plan // may be nil
	node  string
	links map[int]string
}

func (f *fastPath) ends(plan *fabric.Plan) (*ends, error) {
	records, err := attachment.OpenDirectory(f.config.StateDir).List("")
	if err != nil {
		return nil, err
	}
	e := &ends{pods: map[netip.Addr]string{}, plan: plan, node: f.config.NodeName, links: map[int]string{}}
	for _, r := range records {
		for _, a := range r.Wire.Addresses {
			e.pods[a] = r.Pod
		}
	}
	return e, nil
}

// nodeOf is the node of a pod's address.
func (e *ends) nodeOf(a netip.Addr) string {
	if _, here := e.pods[a]; here {
		return e.node
	}
	if e.plan == nil {
		return ""
	}
	for _, p := range e.plan.Peers {
		if slices.ContainsFunc(p.Ways, func(w fabric.Way) bool { return w.PodCIDR.Contains(a) }) {
			return p.Name
		}
	}
	return ""
}

func (e *ends) link(index int) string {
	if _, known := e.links[index]; !known {
		if l, err := net.InterfaceByIndex(index); err == nil {
			e.links[index] = l.Name
		}
	}
	return e.links[index]
}

// flows lists what a snapshot has. It runs on any goroutine.
func (e *ends) flows(s *fastpath.Snapshot, wanted FlowsWanted) (all []RememberedFlow, more int, err error) {
	addresses, err := wanted.addresses()
	if err != nil {
		return nil, 0, err
	}
	is := func(end netip.Addr) bool {
		return (wanted.Pod == "" || e.pods[end] == wanted.Pod) && (addresses == nil || slices.Contains(addresses, end))
	}
	found, more, err := s.Most(wanted.Limit, func(f fastpath.Flow) bool { return is(f.From.Addr()) || is(f.To.Addr()) })
	if err != nil {
		return nil, 0, err
	}
	all = []RememberedFlow{}
	for _, one := range found {
		all = append(all, RememberedFlow{
			Flow: one, FromPod: e.pods[one.From.Addr()], ToPod: e.pods[one.To.Addr()], FromNode: e.nodeOf(one.From.Addr()), ToNode: e.nodeOf(one.To.Addr()),
			FromInterface: e.link(one.There.In), ToInterface: e.link(one.Back.In),
		})
	}
	return all, more, nil
}

func (f *fastPath) serveFlows(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	wanted := FlowsWanted{Pod: query.Get("pod"), Addresses: query.Get("address")}
	limit, err := strconv.Atoi(cmp.Or(query.Get("limit"), "0"))
	if wanted.Limit = limit; err == nil {
		err = wanted.check()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	all := RememberedFlows{Node: f.config.NodeName, Datapath: datapathEBPF, Flows: []RememberedFlow{}}
	var snapshot *fastpath.Snapshot
	var plan *fabric.Plan
	// To list them takes longer than the agent has.
	if !ask(w, r, f.Do, func() {
		plan = f.Plan
		if all.Because = f.why; f.why != "" {
			all.Datapath = datapathKernel
		}
		snapshot, err = f.keeper.Snapshot()
	}) {
		return
	}
	if err == nil {
		defer snapshot.Close()
		var e *ends
		if e, err = f.ends(plan); err == nil {
			all.Flows, all.More, err = e.flows(snapshot, wanted)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, all)
}

func (wanted FlowsWanted) question() string {
	return "/flows?" + url.Values{"pod": {wanted.Pod}, "address": {wanted.Addresses}, "limit": {strconv.Itoa(wanted.Limit)}}.Encode()
}

// AskFlows asks the flatnetd of a state directory which flows take the fast path.
func AskFlows(ctx context.Context, stateDir string, wanted FlowsWanted) (all RememberedFlows, err error) {
	err = decode(ctx, stateDir, wanted.question(), &all)
	return all, err
}

// Print writes them for people.
func (s RememberedFlows) Print(w io.Writer, now time.Time) {
	switch {
	case s.Because != "":
		fmt.Fprintf(w, "no flow is remembered: the data path is the kernel's, because %s\n", s.Because)
		return
	case len(s.Flows) == 0:
		fmt.Fprintln(w, "no flow is remembered")
		return
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "PROTOCOL\tFROM\tPOD\tTO\tPOD\tPACKETS\tBYTES\tAGE\tFAST")
	for _, f := range s.Flows {
		fast := "yes"
		if !f.Active {
			fast = "not yet"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d/%d\t%d/%d\t%s\t%s\n", f.Protocol, f.From, cmp.Or(f.FromPod, "-"), f.To, cmp.Or(f.ToPod, "-"),
			f.There.Packets, f.Back.Packets, f.There.Bytes, f.Back.Bytes, since(f.Since, now), fast)
	}
	table.Flush()
	if s.More > 0 {
		fmt.Fprintf(w, "and %d more with fewer bytes: --limit 0 shows all\n", s.More)
	}
}

// printFlows prints which flows take the fast path.
func printFlows(ctx context.Context, c Config, wanted FlowsWanted, output string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+time.Second)
	defer cancel()
	all, err := AskFlows(ctx, c.StateDir, wanted)
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(out, all)
	}
	all.Print(out, time.Now())
	return nil
}
