package agent

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/fastpath"
	"github.com/flatnet-cni/flatnet/pkg/feature"
)

// FastPathStatus is which way packets of established flows take.
type FastPathStatus struct {
	FastPath FastPath `json:"fastPath"`
}

// FastPath is the fast path's part of the status.
type FastPath struct {
	Datapath   string             `json:"datapath"`          // ebpf or kernel, as it is now
	Because    string             `json:"because,omitempty"` // why it is kernel
	Interfaces []string           `json:"interfaces"`        // that the programs are at
	By         string             `json:"by,omitempty"`      // how they are there: "tcx" or "filters of tc"
	Skipped    []fastpath.Skipped `json:"skipped,omitempty"` // that they are not at
	Without    []string           `json:"without,omitempty"` // pods for which it is switched off
	Flows      int                `json:"flows"`             // that are remembered
	fastpath.Counts
}

func (f *fastPath) status() FastPathStatus {
	s := FastPath{Datapath: datapathEBPF, Interfaces: f.attached()}
	if f.why != "" {
		s.Datapath, s.Because = datapathKernel, f.why
		return FastPathStatus{s}
	}
	s.By = f.keeper.AttachedBy()
	s.Skipped, s.Without = f.done.Skipped, f.without
	// What cannot be read is not there to be seen.
	s.Counts, _ = f.keeper.Counts()
	s.Flows, _ = f.keeper.Count()
	return FastPathStatus{s}
}

func (s FastPathStatus) part() feature.Part {
	f := s.FastPath
	if f.Because != "" {
		return feature.Part{Document: s, Rows: []feature.Row{{Name: "data path", Value: "kernel, because " + f.Because}}}
	}
	text := fmt.Sprintf("ebpf at %d interfaces by %s, %d flows", len(f.Interfaces), f.By, f.Flows)
	const percent = 100
	if all := f.Hits + f.Misses; all > 0 {
		text += fmt.Sprintf(", %d%% of packets take the fast path", f.Hits*percent/all)
	}
	rows := []feature.Row{{Name: "data path", Value: text}}
	for _, l := range f.Skipped {
		rows = append(rows, feature.Row{Name: "  not at " + l.Interface, Value: l.Reason})
	}
	return feature.Part{Document: s, Rows: rows}
}

// RememberedFlows is what `flatnetd flows` prints.
type RememberedFlows struct {
	Flows []RememberedFlow `json:"flows"` // sorted by address
}

// RememberedFlow is one that takes the fast path, with the pods of this node at its ends.
type RememberedFlow struct {
	fastpath.Flow
	FromPod string `json:"fromPod,omitempty"` // namespace/name
	ToPod   string `json:"toPod,omitempty"`
	// FromInterface and ToInterface are where packets of the ends come from.
	FromInterface string `json:"fromInterface,omitempty"`
	ToInterface   string `json:"toInterface,omitempty"`
}

func (f *fastPath) flows() (all RememberedFlows, err error) {
	all.Flows = []RememberedFlow{}
	found, err := f.keeper.All()
	if err != nil {
		return all, err
	}
	records, err := attachment.OpenDirectory(f.config.StateDir).List("")
	if err != nil {
		return all, err
	}
	pods := map[netip.Addr]string{}
	for _, r := range records {
		for _, a := range r.Wire.Addresses {
			pods[a] = r.Pod
		}
	}
	names := map[int]string{}
	name := func(index int) string {
		if _, known := names[index]; !known {
			if l, err := net.InterfaceByIndex(index); err == nil {
				names[index] = l.Name
			}
		}
		return names[index]
	}
	for _, one := range found {
		all.Flows = append(all.Flows, RememberedFlow{
			Flow: one, FromPod: pods[one.From.Addr()], ToPod: pods[one.To.Addr()],
			FromInterface: name(one.There.In), ToInterface: name(one.Back.In),
		})
	}
	return all, nil
}

func (f *fastPath) serveFlows(w http.ResponseWriter, r *http.Request) {
	var all RememberedFlows
	var err error
	if !ask(w, r, f.Do, func() { all, err = f.flows() }) {
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, all)
}

// AskFlows asks the flatnetd of a state directory which flows take the fast path. With a
// pod, namespace/name, it is those of the pod.
func AskFlows(ctx context.Context, stateDir, pod string) (all RememberedFlows, err error) {
	if err = decode(ctx, stateDir, "/flows", &all); err != nil || pod == "" {
		return all, err
	}
	all.Flows = slices.DeleteFunc(all.Flows, func(f RememberedFlow) bool { return f.FromPod != pod && f.ToPod != pod })
	return all, nil
}

// Print writes them for people.
func (s RememberedFlows) Print(w io.Writer, now time.Time) {
	if len(s.Flows) == 0 {
		fmt.Fprintln(w, "no flow is remembered: `flatnetd status` says whether the fast path is in use")
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
}

// printFlows prints which flows take the fast path.
func printFlows(ctx context.Context, c Config, pod, output string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+time.Second)
	defer cancel()
	all, err := AskFlows(ctx, c.StateDir, pod)
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(out, all)
	}
	all.Print(out, time.Now())
	return nil
}
