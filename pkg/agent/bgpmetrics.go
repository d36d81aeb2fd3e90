package agent

import (
	"context"
	"net/netip"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/bgp"
	"github.com/flatnet-cni/flatnet/pkg/feature"
)

// refusals are the reasons to refuse what a peer tells, as the metrics have them.
var refusals = map[string]string{
	bgp.RefusedOwn: "own", bgp.RefusedEcho: "echo", bgp.RefusedDefault: "default", bgp.RefusedPod: "pods", bgp.RefusedOther: "other", bgp.RefusedOdd: "odd",
}

func (f *routing) gauges() []feature.Gauge {
	gauge := func(name, help string, tell func(tell func(float64, ...string)), labels ...string) feature.Gauge {
		return feature.Gauge{
			Description: prometheus.NewDesc(name, help, labels, nil),
			Read:        func(_ context.Context, to func(float64, ...string)) { tell(to) },
		}
	}
	return []feature.Gauge{
		gauge("flatnet_bgp_sessions", "BGP sessions that are desired, and that are established.", func(tell func(float64, ...string)) {
			c := f.status().counts()
			tell(float64(c.Peers), "desired")
			tell(float64(c.Established), established)
		}, "state"),
		gauge("flatnet_bgp_announced_prefixes", "Prefixes that BGP peers are told: of pods, where these are to be announced, and of Services.", f.countAnnounced, "of"),
		gauge("flatnet_bgp_learned_routes", "Routes that were learned of BGP peers and accepted.", func(tell func(float64, ...string)) { tell(float64(len(f.learned.Routes))) }),
		gauge("flatnet_bgp_refused_prefixes", "Prefixes that BGP peers tell of and that are refused: own (podCIDRs of this node), echo (those, told back), default (routes to everywhere), pods (of other nodes), odd (no network of machines), other (what accept does not have).", f.countRefused, "reason"),
	}
}

func (f *routing) countAnnounced(tell func(float64, ...string)) {
	pods, services := map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
	if f.wanted == nil || f.Plan == nil || f.current == nil {
		return
	}
	for _, a := range f.wanted.Announce {
		for _, p := range a.Prefixes {
			if slices.Contains(f.Plan.OwnPodCIDRs, p) {
				pods[p] = true
			} else {
				services[p] = true
			}
		}
	}
	if f.current.WantsPods() {
		tell(float64(len(pods)), "pods")
	}
	tell(float64(len(services)), "services")
}

func (f *routing) countRefused(tell func(float64, ...string)) {
	counts := map[string]int{}
	for _, of := range f.learned.Refused {
		for reason, n := range of {
			counts[reason] += n
		}
	}
	for reason, name := range refusals {
		tell(float64(counts[reason]), name)
	}
}
