package agent

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// What the kernel lacks switches off what needs it, and nothing else. The kernel
// is asked at the start, and now and then: somebody may have loaded a module.

// parts are the parts of flatnet that this node is to have.
func (c Config) parts() []requirements.Part {
	parts := []requirements.Part{requirements.Pods, requirements.IPv6, requirements.Guard6, requirements.Guard4, requirements.Forgetting}
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
	return parts
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

// inspectKernel asks again, and makes due what can be done now or no longer can.
func (a *Agent) inspectKernel() error {
	before := a.report
	a.report = askKernel(a.asked, a.config.parts())
	a.metrics.inspected(a.report)
	if !sameMissing(before, a.report) {
		a.configurePlanner()
		a.schedule.soon(joinTask, time.Now())
		a.schedule.soon(podsTask, time.Now())
	}
	return errors.Join(a.report.Unknown...)
}

func sameMissing(a, b requirements.Report) bool {
	return slices.EqualFunc(a.Missing, b.Missing, func(a, b requirements.Missing) bool { return a.Key == b.Key })
}

// configurePlanner tells the planner what of the overlay there can be.
func (a *Agent) configurePlanner() {
	c := a.config.Fabric
	for _, m := range a.report.Of(requirements.Overlay) {
		c.WithoutOverlay = "kernel " + m.Release + ": " + m.What() + " is missing"
	}
	c.Nodes = c.Nodes && !a.report.Lacks(requirements.OverlayNodes)
	a.planner = &fabric.Planner{Config: c}
}

// possible leaves out of nodes what this kernel has no address family for.
func (a *Agent) possible(nodes []node.Node) []node.Node {
	if !a.report.Lacks(requirements.IPv6) {
		return nodes
	}
	nodes = slices.Clone(nodes)
	for i := range nodes {
		n := &nodes[i]
		n.PodCIDRs = slices.DeleteFunc(slices.Clone(n.PodCIDRs), func(p netip.Prefix) bool { return p.Addr().Is6() })
		n.Addresses = slices.DeleteFunc(slices.Clone(n.Addresses), netip.Addr.Is6)
	}
	return nodes
}

// tablesPossible reports whether the kernel has nf_tables.
func (a *Agent) tablesPossible() bool {
	return !slices.ContainsFunc(a.report.Missing, func(m requirements.Missing) bool { return m.IsNftables() })
}

// kernelProblems are what the kernel lacks, where this node needs it.
func (a *Agent) kernelProblems() (all []problem.Problem) {
	for _, m := range a.report.Missing {
		if m.Key == "ipv6" && a.nodes != nil && !a.usesIPv6() {
			continue
		}
		hint := m.Hint()
		if a.config.Services && slices.Contains(m.Affected, requirements.Services) {
			hint += "; then start flatnetd again"
		}
		f := problem.Facts{Node: a.config.NodeName, Reason: m.String(), Advice: hint}
		if slices.Contains(m.Affected, requirements.Overlay) {
			f.Breaks = []problem.Thing{problem.Overlay}
		}
		all = append(all, problem.KernelFeature.Of(f))
	}
	return all
}

// logKernelProblems logs them before anything else is known.
func (a *Agent) logKernelProblems() {
	a.told.tell(a.log, a.kernelProblems())
}

// usesIPv6 reports whether any node has IPv6 for its pods.
func (a *Agent) usesIPv6() bool {
	return slices.ContainsFunc(a.nodes, func(n node.Node) bool {
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
