package agent

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// balancing is what there is to know of how Services are balanced.
type balancing struct {
	node, healthAddress string
	summary             service.Summary
	lost                error        // why the sources are not up to date
	traces              []string     // of kube-proxy
	routless            []netip.Addr // ClusterIPs that the node itself has no route to
	deaf                error        // why nobody can ask for the node's health
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
			Advice: "of two, whichever the kernel asks first decides; end kube-proxy on this node and run `kube-proxy --cleanup`, or run flatnetd without --services",
			Breaks: []problem.Thing{problem.HealthPort},
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
	if b.deaf != nil {
		f := problem.Facts{Object: "--services-health " + b.healthAddress, Reason: b.deaf.Error(),
			Advice: "load balancers ask there whether the node is well: " + problem.NodeHealth.Advice()}
		if strings.HasSuffix(b.healthAddress, ":10256") {
			f.Needs = []problem.Thing{problem.HealthPort}
		}
		add(problem.NodeHealth, f)
	}
	return all
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
