package agent

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/policy"
)

// policyMetrics are those that the controller tells.
type policyMetrics struct {
	seconds prometheus.Histogram
	opened  prometheus.Counter
}

func newPolicyMetrics() *policyMetrics {
	return &policyMetrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flatnet_policy_sync_seconds", Help: "Time that it took to bring the rules of policies up to date.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
		opened: prometheus.NewCounter(prometheus.CounterOpts{Name: "flatnet_policy_pods_opened_total", Help: "Addresses of new pods that were closed until their rules were in place."}),
	}
}

// refusedPackets are read when they are asked for: two series a pod of this node that a
// policy selects, and two of pods that are still closed.
type refusedPackets struct{ p *policies }

var refusedDescription = prometheus.NewDesc("flatnet_policy_refused_packets_total", "Packets of new connections that policies refused, by pod of this node and direction.", []string{"namespace", "pod", "direction"}, nil)

var earlyDescription = prometheus.NewDesc("flatnet_policy_early_packets_total", "Packets of new connections that were refused because a new pod's rules were not in place yet, by direction.", []string{"direction"}, nil)

// Describe implements [prometheus.Collector].
func (refusedPackets) Describe(all chan<- *prometheus.Desc) {
	all <- refusedDescription
	all <- earlyDescription
}

// Collect implements [prometheus.Collector].
func (r refusedPackets) Collect(all chan<- prometheus.Metric) {
	if r.p.controller == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// What fails may be answered the next time.
	if early, err := r.p.controller.Early(ctx); err == nil {
		for _, d := range policy.Directions {
			all <- prometheus.MustNewConstMetric(earlyDescription, prometheus.CounterValue, float64(early[d]), d.String())
		}
	}
	pods, err := r.p.controller.Status(ctx)
	if err != nil {
		return
	}
	for _, pod := range pods {
		namespace, name, _ := strings.Cut(pod.Pod, "/")
		for _, d := range pod.Sides {
			if len(d.Policies) > 0 {
				all <- prometheus.MustNewConstMetric(refusedDescription, prometheus.CounterValue, float64(d.Refused), namespace, name, d.Direction)
			}
		}
	}
}
