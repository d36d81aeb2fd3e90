package agent

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/announce"
	"github.com/flatnet-cni/flatnet/pkg/feature"
)

// announcing are the counters of answers.
type announcing struct{ *balancers }

var (
	answersDescription   = prometheus.NewDesc("flatnet_announce_answers_total", "Questions of neighbours for addresses of load balancers that this node has answered, by protocol: arp, ndp.", []string{"protocol"}, nil)
	announcedDescription = prometheus.NewDesc("flatnet_announce_announcements_total", "Announcements that this node has sent of addresses of load balancers, unasked.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (a announcing) Describe(all chan<- *prometheus.Desc) {
	all <- answersDescription
	all <- announcedDescription
}

// Collect implements [prometheus.Collector].
func (a announcing) Collect(all chan<- prometheus.Metric) {
	if !a.on() {
		return
	}
	arp, ndp, announced := a.announcer.Counts()
	all <- prometheus.MustNewConstMetric(answersDescription, prometheus.CounterValue, float64(arp), "arp")
	all <- prometheus.MustNewConstMetric(answersDescription, prometheus.CounterValue, float64(ndp), "ndp")
	all <- prometheus.MustNewConstMetric(announcedDescription, prometheus.CounterValue, float64(announced))
}

func (b *balancers) gauges() (all []feature.Gauge) {
	gauge := func(name, help string, labels []string, read func(tell func(float64, ...string))) {
		all = append(all, feature.Gauge{Description: prometheus.NewDesc(name, help, labels, nil), Read: func(_ context.Context, tell func(float64, ...string)) {
			if b.on() {
				read(tell)
			}
		}})
	}
	gauge("flatnet_loadbalancer_leader", "1 on the node whose agent gives addresses to Services, else 0.", nil, func(tell func(float64, ...string)) {
		tell(truth(b.controller.State().Leads))
	})
	gauge("flatnet_loadbalancer_services", "Services of type LoadBalancer by state: served, waiting (for an address). Only the agent that gives them tells.", []string{"state"}, func(tell func(float64, ...string)) {
		if s := b.controller.State(); s.Leads {
			tell(float64(s.Given), "served")
			tell(float64(len(s.Waiting)), "waiting")
		}
	})
	gauge("flatnet_loadbalancer_addresses", "Addresses of a pool, by family and state: all, given. Only the agent that gives them tells.", []string{"pool", "family", "state"}, func(tell func(float64, ...string)) {
		s, config := b.controller.State(), b.pools.Load()
		if !s.Leads || config == nil {
			return
		}
		for _, p := range poolUsage(config, s) {
			tell(p.Size, p.Pool, p.Family, "all")
			tell(float64(p.Given), p.Pool, p.Family, "given")
		}
	})
	gauge("flatnet_announce_addresses", "Addresses of load balancers that some node is to answer for, by who does: here, elsewhere, nobody.", []string{"where"}, func(tell func(float64, ...string)) {
		here, elsewhere, nobody := countAnswered(b.announcer.State(), b.config.NodeName)
		tell(float64(here), "here")
		tell(float64(elsewhere), "elsewhere")
		tell(float64(nobody), "nobody")
	})
	gauge("flatnet_announce_lease_valid", "1 where this node may answer for addresses of load balancers, because it has renewed its Lease in time, else 0. Only nodes with a named interface tell.", nil, func(tell func(float64, ...string)) {
		if s := b.announcer.State(); len(s.Interfaces) > 0 {
			tell(truth(b.member.Valid()))
		}
	})
	gauge("flatnet_announce_conflicts", "Addresses of load balancers that this node answers for, and of which another machine has lately said that it has them.", nil, func(tell func(float64, ...string)) {
		tell(float64(len(b.announcer.State().Conflicts)))
	})
	gauge("flatnet_announce_together", "1 where this node answers for addresses of load balancers without a valid Lease, because no node can renew its Lease and all hear each other, else 0.", nil, func(tell func(float64, ...string)) {
		if s := b.announcer.State(); len(s.Interfaces) > 0 {
			tell(truth(s.Together))
		}
	})
	return all
}

// countAnswered counts addresses by who answers for them.
func countAnswered(s announce.State, node string) (here, elsewhere, nobody int) {
	for _, a := range s.Addresses {
		switch {
		case a.Node == "":
			nobody++
		case a.Node != node:
			elsewhere++
		case s.Valid || s.Together:
			here++
		}
	}
	return here, elsewhere, nobody
}
