package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// What the kernel lacks switches off what needs it, and nothing else. The kernel
// is asked at the start, before there are features, and now and then: somebody may have
// loaded a module.

// parts are the parts of flatnet that this node is to have.
func (c Config) parts() []requirements.Part {
	parts := []requirements.Part{requirements.Pods, requirements.IPv6, requirements.Guard6, requirements.Guard4, requirements.Forgetting}
	if c.PodDevice == string(kernel.Netkit) {
		parts = append(parts, requirements.Netkit)
	}
	if c.Fabric.Mode == fabric.Auto || c.Fabric.Mode == fabric.VXLAN {
		parts = append(parts, requirements.Overlay)
		if c.Fabric.Nodes {
			parts = append(parts, requirements.OverlayNodes)
		}
	}
	if c.MasqueradeIPv4 || c.MasqueradeIPv6 {
		parts = append(parts, requirements.Masquerade)
	}
	if c.Services {
		parts = append(parts, requirements.Services, requirements.Services6)
	}
	if c.Policies {
		parts = append(parts, requirements.Policies)
	}
	return append(parts, requirements.HostPorts, requirements.Rates)
}

// askKernel asks what the kernel has of what the parts need. Without IPv6, what
// only IPv6 needs is no loss.
func askKernel(k requirements.Kernel, parts []requirements.Part) requirements.Report {
	r := requirements.Check(k, parts...)
	if !r.Lacks(requirements.IPv6) {
		return r
	}
	return requirements.Check(k, slices.DeleteFunc(slices.Clone(parts), func(p requirements.Part) bool {
		return p == requirements.Guard6 || p == requirements.Services6
	})...)
}

// kernelKeeping is the feature that knows what the kernel lacks, and asks it again.
type kernelKeeping struct {
	*feature.Shared
	config Config
	asked  requirements.Kernel
	task   *feature.Task
	has    *prometheus.GaugeVec
}

func newKernelKeeping(c Config, s *feature.Shared) *kernelKeeping {
	f := &kernelKeeping{Shared: s, config: c, asked: requirements.Running{}, has: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "flatnet_kernel_feature", Help: "1 where the kernel has what flatnet needs on this node, 0 where it lacks it.",
	}, []string{"feature"})}
	f.task = &feature.Task{
		Name: "kernel", Run: f.inspect, Gap: time.Second, Every: c.Collect,
		Advice: "what the kernel lacks is not known: flatnetd goes by what it has; run it as root, with CAP_NET_ADMIN",
	}
	return f
}

func (f *kernelKeeping) feature() feature.Feature {
	return feature.Feature{
		Begin: func() error {
			f.tell()
			f.task.By(time.Now().Add(f.config.Resync))
			return nil
		},
		Tasks: []*feature.Task{f.task}, Problems: f.problems,
		Status:  func(context.Context) feature.Part { return kernelPart(kernelStatus(f.Kernel)) },
		Metrics: []prometheus.Collector{f.has},
	}
}

// inspect asks again, and has others do what can be done now or no longer can.
func (f *kernelKeeping) inspect(context.Context) error {
	before := f.Kernel
	f.Kernel = askKernel(f.asked, f.config.parts())
	f.tell()
	if len(f.Kernel.Missing) > 0 {
		f.task.By(time.Now().Add(f.config.Resync)) // somebody may be about to mend it
	}
	errs := f.Kernel.Unknown
	if !sameMissing(before, f.Kernel) {
		errs = append(slices.Clip(errs), f.Publish(feature.KernelChanged))
	}
	return errors.Join(errs...)
}

// tell notes in the metrics what the kernel has.
func (f *kernelKeeping) tell() {
	f.has.Reset()
	for _, present := range f.Kernel.Present {
		f.has.WithLabelValues(present.Key).Set(1)
	}
	for _, missing := range f.Kernel.Missing {
		f.has.WithLabelValues(missing.Key).Set(0)
	}
}

func sameMissing(a, b requirements.Report) bool {
	return slices.EqualFunc(a.Missing, b.Missing, func(a, b requirements.Missing) bool { return a.Key == b.Key })
}

// problems are what the kernel lacks, where this node needs it.
func (f *kernelKeeping) problems() (all []problem.Problem) {
	for _, m := range f.Kernel.Missing {
		if m.Key == "ipv6" && f.Nodes != nil && !usesIPv6(f.Nodes) {
			continue
		}
		hint := m.Hint()
		if f.config.Services && slices.Contains(m.Affected, requirements.Services) {
			hint += "; then start flatnetd again"
		}
		facts := problem.Facts{Node: f.config.NodeName, Reason: m.String(), Advice: hint}
		if slices.Contains(m.Affected, requirements.Overlay) {
			facts.Breaks = []problem.Thing{problem.Overlay}
		}
		all = append(all, problem.KernelFeature.Of(facts))
	}
	return all
}

// usesIPv6 reports whether any node has IPv6 for its pods.
func usesIPv6(nodes []node.Node) bool {
	return slices.ContainsFunc(nodes, func(n node.Node) bool {
		return slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() })
	})
}

// KernelStatus is what the kernel lacks of what flatnet needs.
type KernelStatus struct {
	Release string           `json:"release"`
	Missing []MissingFeature `json:"missing"`
}

// MissingFeature is one thing that the kernel lacks.
type MissingFeature struct {
	Name     string              `json:"name"`
	Module   string              `json:"module,omitempty"`
	Config   string              `json:"config,omitempty"` // without CONFIG_
	Since    string              `json:"since"`            // version of Linux
	Affected []requirements.Part `json:"affected"`
}

func kernelStatus(r requirements.Report) KernelStatus {
	s := KernelStatus{Release: r.Release, Missing: []MissingFeature{}}
	for _, m := range r.Missing {
		s.Missing = append(s.Missing, MissingFeature{m.Name, m.Module, m.Config, m.Since.String(), m.Affected})
	}
	return s
}

// RequirementsStatus is the kernel's part of the status.
type RequirementsStatus struct {
	Kernel KernelStatus `json:"kernel"`
}

func kernelPart(s KernelStatus) feature.Part {
	part := feature.Part{Document: RequirementsStatus{s}}
	if len(s.Missing) > 0 {
		var names []string
		for _, m := range s.Missing {
			names = append(names, m.Name)
		}
		part.Rows = []feature.Row{{Name: "kernel", Value: s.Release + ", without " + strings.Join(names, ", ")}}
	}
	return part
}
