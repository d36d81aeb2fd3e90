package agent

import (
	"fmt"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fastpath"
	"github.com/flatnet-cni/flatnet/pkg/feature"
)

// FastPathStatus is which way packets of established flows take.
type FastPathStatus struct {
	FastPath FastPath `json:"fastPath"`
}

// FastPath is the fast path's part of the status.
type FastPath struct {
	Wanted     string             `json:"wanted"`            // --datapath: kernel, ebpf, auto
	Datapath   string             `json:"datapath"`          // ebpf or kernel, as it is now
	Because    string             `json:"because,omitempty"` // why it is kernel
	Interfaces []string           `json:"interfaces"`        // that the programs are at
	By         string             `json:"by,omitempty"`      // how they are there: "tcx" or "filters of tc"
	Skipped    []fastpath.Skipped `json:"skipped,omitempty"` // that they are not at
	Without    []string           `json:"without,omitempty"` // pods for which it is switched off
	Flows      int                `json:"flows"`             // that are remembered
	Counted    time.Time          `json:"counted,omitzero"`  // when there were as many
	fastpath.Counts
}

func (f *fastPath) status() FastPathStatus {
	s := FastPath{Wanted: f.config.Datapath, Datapath: datapathEBPF, Interfaces: f.attached()}
	if f.why != "" {
		s.Datapath, s.Because = datapathKernel, f.why
		return FastPathStatus{s}
	}
	s.By = f.keeper.AttachedBy()
	s.Skipped, s.Without = f.done.Skipped, f.without
	// What cannot be read is not there to be seen.
	s.Counts, _ = f.keeper.Counts()
	counted, _ := f.keeper.Count(countPatience)
	s.Flows, s.Counted = counted.Flows, counted.At
	return FastPathStatus{s}
}

// countPatience is how long an answer waits for flows to be counted.
const countPatience = 20 * time.Millisecond

func (s FastPathStatus) part() feature.Part {
	f := s.FastPath
	if f.Because != "" {
		return feature.Part{Document: s, Rows: []feature.Row{{Name: "data path", Value: "kernel, because " + f.Because}}}
	}
	text := fmt.Sprintf("ebpf at %d interfaces by %s, %d flows", len(f.Interfaces), f.By, f.Flows)
	const old = 2 * time.Second
	if now := time.Now(); now.Sub(f.Counted) > old {
		text += fmt.Sprintf(" (counted %s ago)", since(f.Counted, now))
	}
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
