package agent

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// balancing is what there is to know of how Services are balanced.
type balancing struct {
	node     string
	summary  service.Summary
	lost     error        // why the sources are not up to date
	traces   []string     // of kube-proxy
	routless []netip.Addr // ClusterIPs that the node itself has no route to
	deaf     []deaf
}

// deaf is what should answer in kube-proxy's place, and why it cannot.
type deaf struct {
	in  *standIn
	err error
}

// problems are all that keeps Services from being reached as they should.
func (b balancing) problems() (all []problem.Problem) {
	add := func(kind problem.Kind, f problem.Facts) {
		f.Node = b.node
		all = append(all, kind.Of(f))
	}
	if b.lost != nil {
		add(problem.ServicesSource, problem.Facts{Object: "source of Services", Reason: strings.ReplaceAll(b.lost.Error(), "\n", "; "), Needs: []problem.Thing{problem.API}})
	}
	if b.summary.Failure != "" {
		add(problem.ServicesRules, problem.Facts{Object: "rules of Services", Reason: b.summary.Failure})
	}
	if len(b.traces) > 0 {
		add(problem.KubeProxy, problem.Facts{
			Object: "kube-proxy", Reason: "balances Services as well, or has left its rules: " + strings.Join(b.traces, ", "),
			Advice: "of two, whichever the kernel asks first decides; " + service.WithoutKubeProxy(b.traces) + ". Or run flatnetd without --services",
			Breaks: []problem.Thing{portOf(DefaultServicesHealth), portOf(DefaultServicesMetrics)},
		})
	}
	for _, ip := range b.routless {
		add(problem.ClusterIPRoute, routelessFacts(ip))
	}
	for _, r := range b.summary.Refused {
		add(problem.ServicesFeature, problem.Facts{Object: "rules of Services", Reason: r,
			Advice: "all other Services are served; " + problem.ServicesFeature.Advice()})
	}
	if b.summary.Conflicts > 0 {
		add(problem.ServicesConflict, problem.Facts{Object: "Services", Reason: fmt.Sprintf("%d addresses and ports are claimed by more than one Service", b.summary.Conflicts)})
	}
	for _, at := range b.summary.Unheard {
		add(problem.ServiceHealth, problem.Facts{Object: "health of Services at " + at, Reason: "flatnetd cannot listen there"})
	}
	for _, d := range b.deaf {
		add(d.in.kind, problem.Facts{
			Object: "--" + d.in.flag + " " + d.in.address, Reason: d.err.Error(),
			Advice: "Services are balanced all the same. " + d.in.kind.Advice(), Needs: []problem.Thing{portOf(d.in.address)},
		})
	}
	return all
}

// portOf is the port of an address at which kube-proxy may listen as well.
func portOf(address string) problem.Thing {
	_, port, _ := net.SplitHostPort(address) // a flag that was checked
	return problem.Port(port)
}

// routelessFacts are those of a ClusterIP that the node has no route to.
func routelessFacts(ip netip.Addr) problem.Facts {
	family, command, network := "IPv4", "ip", "10.96.0.0/12"
	if ip.Is6() {
		family, command, network = "IPv6", "ip -6", "fd00:96::/108"
	}
	return problem.Facts{
		Object: family + " ClusterIPs", Reason: fmt.Sprintf("the node has no route to %s: pods reach Services, what runs on the node itself does not", ip),
		Advice: fmt.Sprintf("give the node a default route, or one to the Services' network, as in `%s route add %s dev eth0`: where it leads does not matter", command, network),
	}
}
