package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/conntrack"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/masquerade"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/plugin"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// pods is the feature that keeps pods' attachments as the plugin made them, and counts
// their addresses.
type pods struct {
	ownNetwork
	plugin *plugin.Plugin
	task   *feature.Task

	followed  followed
	outsiders []outsider // pods' addresses outside of the podCIDRs
}

func newPods(c Config, s *feature.Shared) *pods {
	f := &pods{ownNetwork: ownNetwork{s, c}, plugin: &plugin.Plugin{Sysctls: c.SysctlDir}}
	f.task = &feature.Task{
		Name: "pods", Run: s.OncePlanned(f.restore), Gap: 300 * time.Millisecond, Every: c.Resync,
		Advice: "a pod's interface or routes could not be mended: look at the pod that the sentence names; to delete it always helps",
	}
	return f
}

func (f *pods) feature() feature.Feature {
	return feature.Feature{
		Tasks: []*feature.Task{f.task}, Follow: f.follow, Problems: f.problems,
		Event: func(e kernel.Event) {
			if e.Pods {
				f.task.Soon()
			}
		},
		// The plugin's tables.
		Tables: func() (nft.Listener, error) { return masquerade.NewWatcher(f.task.Ask) },
		Status: func(ctx context.Context) feature.Part { return f.status(ctx).part() },
		Gauges: []feature.Gauge{{
			Description: prometheus.NewDesc("flatnet_addresses", "Addresses of this node's pods by state: used, cooling (released, and last in the queue), free, outside (of the podCIDRs, which were changed while those pods ran).", []string{"family", "state"}, nil),
			Read:        f.count,
		}, {
			Description: prometheus.NewDesc("flatnet_pod_interfaces", "Interfaces of this node's pods by what they are: veth, netkit.", []string{"device"}, nil),
			Read: func(_ context.Context, tell func(float64, ...string)) {
				d := f.devices()
				tell(float64(d.Veth), kernel.Veth.String())
				tell(float64(d.Netkit), kernel.Netkit.String())
			},
		}},
		Repairs: []string{"pod"},
		Cleanup: feature.Removal{At: feature.WithPods, Do: f.remove},
	}
}

func (f *pods) follow(n feature.News) error {
	// Some may be outside of the network now.
	if n == feature.KernelChanged || n == feature.FabricJoined && f.followed.change(f.network()) {
		f.task.Soon()
	}
	return nil
}

// verbTimeout is as long as the plugin itself would take at most.
const verbTimeout = 30 * time.Second

// restore mends what somebody has taken from pods' attachments.
func (f *pods) restore(ctx context.Context) error {
	r, err := f.request("RESTORE")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	repairs, err := f.plugin.Restore(ctx, r)
	for _, object := range repairs {
		f.Repaired("pod", 1)
		f.Log.Warn("repaired what somebody had changed", "object", object)
	}
	if err != nil {
		return fmt.Errorf("restoring pods' attachments: %w", err)
	}
	return f.findOutsiders()
}

// findOutsiders reads the attachments that the plugin has recorded.
func (f *pods) findOutsiders() error {
	n := f.network()
	records, err := attachment.OpenDirectory(f.config.StateDir).List(n.Name)
	if err != nil {
		return fmt.Errorf("looking for pods outside of the podCIDRs: %w", err)
	}
	f.outsiders = outsidersOf(records, n.PodCIDRs)
	return nil
}

func (f *pods) problems() []problem.Problem {
	if len(f.outsiders) == 0 {
		return nil
	}
	return []problem.Problem{outsideProblem(f.config.NodeName, f.outsiders, f.network().PodCIDRs)}
}

// PodsStatus is which addresses the node's pods have.
type PodsStatus struct {
	Pods      []Usage   `json:"pods"`
	PodDevice PodDevice `json:"podDevice"`
}

func (f *pods) status(ctx context.Context) PodsStatus {
	if len(f.outsiders) > 0 {
		_ = f.findOutsiders() // that one has ended is no news otherwise; what it says then is from before
	}
	s := PodsStatus{Pods: []Usage{}, PodDevice: f.devices()}
	if usages, err := f.usages(ctx, f.outsiders); err == nil && usages != nil {
		s.Pods = usages
	}
	return s
}

// devices reads what the plugin has recorded; what cannot be read is not there to be seen.
func (f *pods) devices() (d PodDevice) {
	d.New, d.Because = f.podDevice()
	records, _ := attachment.OpenDirectory(f.config.StateDir).List(f.network().Name)
	d.count(records)
	return d
}

func (s PodsStatus) part() feature.Part {
	part := feature.Part{Document: s, Rows: s.PodDevice.rows()}
	for _, u := range s.Pods {
		text := fmt.Sprintf("%d of %s used, %d cooling", u.Used, amount(u.Total), u.Cooling)
		if u.Outside > 0 {
			text += fmt.Sprintf(", %d outside of the podCIDRs", u.Outside)
		}
		part.Rows = append(part.Rows, feature.Row{Name: u.Family + " addresses", Value: text})
	}
	return part
}

// amount is a number of addresses for people, who do not read twenty digits.
func amount(n uint64) string {
	const billion = 1_000_000_000
	if n > billion {
		return "billions"
	}
	return fmt.Sprint(n)
}

func (f *pods) count(ctx context.Context, tell func(float64, ...string)) {
	usages, err := f.usages(ctx, f.outsiders)
	if err != nil {
		return
	}
	for _, u := range usages {
		tell(float64(u.Used), u.Family, "used")
		tell(float64(u.Cooling), u.Family, "cooling")
		tell(float64(u.Outside), u.Family, "outside")
		tell(float64(u.Total)-float64(u.Used)-float64(u.Cooling), u.Family, "free")
	}
}

// remove deletes the host interfaces of pods, which takes the pods' ends
// along, and the gateways that the node answers to.
func (f *pods) remove(context.Context) (removed []string, err error) {
	k, err := kernel.NewNetlink(nil)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	links, err := k.LinksOfGroup()
	if err != nil {
		return nil, err
	}
	records, err := attachment.OpenDirectory(f.config.StateDir).List("")
	errs := []error{err}
	recorded := map[string]attachment.Record{}
	for _, r := range records {
		recorded[r.Wire.Host.Name] = r
	}
	for _, link := range links {
		r, known := recorded[link.Name]
		if _, ours := attachment.KeyOf(link.Alias); !ours && !(known && r.Owns(link.Alias)) {
			continue
		}
		if err := k.DeleteLink(kernel.Host, link.Name); err != nil {
			errs = append(errs, fmt.Errorf("deleting interface %s: %w", link.Name, err))
			continue
		}
		text := "interface " + link.Name
		if r.Pod != "" {
			text += " of pod " + r.Pod
		}
		removed = append(removed, text)
		// A kernel that cannot forget is no reason to keep the rest.
		if err := conntrack.ForgetAddresses(r.Wire.Addresses); err != nil && !requirements.Check(requirements.Running{}, requirements.Forgetting).Lacks(requirements.Forgetting) {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(append(errs, k.RemoveAnswered())...)
}
