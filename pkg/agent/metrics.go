package agent

import (
	"context"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// metrics are what /metrics serves, besides what is asked for at the time; see
// [scrape].
type metrics struct {
	registry  *prometheus.Registry
	duration  *prometheus.HistogramVec
	failures  *prometheus.CounterVec
	repairs   *prometheus.CounterVec
	peers     *prometheus.GaugeVec
	elements  *prometheus.GaugeVec
	collected prometheus.Counter
	podMTU    prometheus.Gauge
	features  *prometheus.GaugeVec
	holding   prometheus.Gauge
}

func newMetrics(c Config) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flatnet_task_duration_seconds", Help: "How long a task of the agent took.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"task"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flatnet_task_failures_total", Help: "Tasks of the agent that failed, and were tried again.",
		}, []string{"task"}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flatnet_repairs_total", Help: "Objects that somebody had changed or removed, and that were made again.",
		}, []string{"object"}),
		peers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "flatnet_peers", Help: "Other nodes by how their pods are reached: direct, vxlan, mixed (by family), none (there is no way), waiting (no podCIDR yet).",
		}, []string{"mode"}),
		elements: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "flatnet_masquerade_set_elements", Help: "Elements of the sets of nftables table inet flatnet.",
		}, []string{"set"}),
		collected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flatnet_collected_total", Help: "Reservations that were freed because their pod is gone.",
		}),
		podMTU: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flatnet_pod_mtu_bytes", Help: "MTU of new pods.",
		}),
		features: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "flatnet_kernel_feature", Help: "1 where the kernel has what flatnet needs on this node, 0 where it lacks it.",
		}, []string{"feature"}),
		holding: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flatnet_translation_held", Help: "1 where established connections that are translated survive a flush of nftables' ruleset by somebody, 0 where the kernel cannot do it (before Linux 5.12) or nothing is translated.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flatnet_build_info", Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": c.Version, "goversion": runtime.Version(), "fabric": string(c.Fabric.Mode)},
	})
	build.Set(1)
	m.registry.MustRegister(
		m.duration, m.failures, m.repairs, m.peers, m.elements, m.collected, m.podMTU, m.features, m.holding, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	// From the start, so that the first repair is an increase.
	for _, object := range []string{"route", "link", "address", "forward", "neighbour", "rule", "nftables", "host", "installation", "pod"} {
		m.repairs.WithLabelValues(object)
	}
	for t := range numberOfTasks {
		m.failures.WithLabelValues(t.String())
	}
	return m
}

func (m *metrics) took(t task, d time.Duration, err error) {
	m.duration.WithLabelValues(t.String()).Observe(d.Seconds())
	if err != nil {
		m.failures.WithLabelValues(t.String()).Inc()
	}
}

func (m *metrics) repaired(o kernel.Object) { m.repairs.WithLabelValues(kindOf(o)).Inc() }

// kindOf is the first word of an object's place: route, link, address, forward,
// neighbour or rule.
func kindOf(o kernel.Object) string {
	kind, _, _ := strings.Cut(kernel.Place(o), " ")
	return kind
}

func (m *metrics) planned(p *fabric.Plan) {
	counts := map[string]int{"direct": 0, "vxlan": 0, "mixed": 0, "none": 0, "waiting": 0}
	for _, peer := range p.Peers {
		counts[modeOf(peer.Ways)]++
	}
	for mode, n := range counts {
		m.peers.WithLabelValues(mode).Set(float64(n))
	}
	m.podMTU.Set(float64(p.PodMTU))
}

// modeOf sums up how a peer is reached.
func modeOf(ways []fabric.Way) string {
	if len(ways) == 0 {
		return "waiting"
	}
	mode := ways[0].Mode
	for _, w := range ways {
		if w.Mode == "" {
			return "none"
		}
		if w.Mode != mode {
			mode = "mixed"
		}
	}
	return string(mode)
}

// inspected notes what the kernel has.
func (m *metrics) inspected(r requirements.Report) {
	m.features.Reset()
	for _, f := range r.Present {
		m.features.WithLabelValues(f.Key).Set(1)
	}
	for _, f := range r.Missing {
		m.features.WithLabelValues(f.Key).Set(0)
	}
}

func (m *metrics) masqueraded(sizes map[string]int) {
	for set, n := range sizes {
		m.elements.WithLabelValues(set).Set(float64(n))
	}
}

func (m *metrics) held(is bool) {
	m.holding.Set(0)
	if is {
		m.holding.Set(1)
	}
}

// scrape collects what is known only when it is asked for.
type scrape struct{ agent *Agent }

var (
	descriptionObjects = prometheus.NewDesc("flatnet_fabric_objects", "Objects of the fabric (routes, tunnel and what is on it) that are desired, and that are present.", []string{"state"}, nil)
	descriptionRoutes  = prometheus.NewDesc("flatnet_routes", "Routes to other nodes' pods that are desired, and that are present.", []string{"state"}, nil)
	descriptionUsage   = prometheus.NewDesc("flatnet_addresses", "Addresses of this node's pods by state: used, cooling (released, and last in the queue), free.", []string{"family", "state"}, nil)
	descriptionHealthy = prometheus.NewDesc("flatnet_source_healthy", "1 where the source of nodes is up to date, else 0.", nil, nil)
	descriptionProblem = prometheus.NewDesc("flatnet_problems", "Problems that `flatnetd status` lists, without what follows from them.", nil, nil)
	descriptionFollows = prometheus.NewDesc("flatnet_problem_consequences", "What follows from the problems that `flatnetd status` lists.", nil, nil)
	descriptionReady   = prometheus.NewDesc("flatnet_ready", "1 where /readyz says yes, else 0.", nil, nil)
	descriptionService = prometheus.NewDesc("flatnet_service_source_healthy", "1 where the source of Services is up to date, else 0.", nil, nil)
	descriptionTracked = prometheus.NewDesc("flatnet_conntrack_entries", "Connections that the kernel tracks.", nil, nil)
	descriptionLimit   = prometheus.NewDesc("flatnet_conntrack_limit", "Connections that the kernel tracks at most; beyond it new ones are dropped.", nil, nil)
	descriptionInsert  = prometheus.NewDesc("flatnet_conntrack_insert_failed_total", "Connections whose first packet was dropped because their translation collided with another's.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (scrape) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descriptionObjects, descriptionRoutes, descriptionUsage, descriptionHealthy, descriptionProblem, descriptionFollows, descriptionReady, descriptionService, descriptionTracked, descriptionLimit, descriptionInsert,
	} {
		all <- d
	}
}

// Collect implements [prometheus.Collector].
func (s scrape) Collect(all chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		all <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	truth := func(d *prometheus.Desc, b bool) {
		if b {
			gauge(d, 1)
		} else {
			gauge(d, 0)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	// What is busy is asked again at the next scrape.
	_ = s.agent.do(ctx, func() {
		present, desired := s.agent.engine.Present()
		gauge(descriptionObjects, float64(desired), "desired")
		gauge(descriptionObjects, float64(present), "present")
		present, desired = s.agent.engine.PresentRoutes()
		gauge(descriptionRoutes, float64(desired), "desired")
		gauge(descriptionRoutes, float64(present), "present")
		problems, consequences := s.agent.currentProblems(), 0
		for _, p := range problems {
			consequences += len(p.Follows())
		}
		gauge(descriptionProblem, float64(len(problems)))
		gauge(descriptionFollows, float64(consequences))
		truth(descriptionReady, s.agent.unready() == nil)
		truth(descriptionHealthy, s.agent.source.Check() == nil)
		if s.agent.services != nil {
			truth(descriptionService, s.agent.services.source.Check() == nil)
		}
		usages, err := s.agent.usages(ctx)
		if err != nil {
			return
		}
		for _, u := range usages {
			gauge(descriptionUsage, float64(u.Used), u.Family, "used")
			gauge(descriptionUsage, float64(u.Cooling), u.Family, "cooling")
			gauge(descriptionUsage, float64(u.Outside), u.Family, "outside")
			gauge(descriptionUsage, float64(u.Total)-float64(u.Used)-float64(u.Cooling), u.Family, "free")
		}
	})
	if entries, limit, err := kernel.Tracked(); err == nil {
		gauge(descriptionTracked, float64(entries))
		gauge(descriptionLimit, float64(limit))
	}
	if failed, err := kernel.InsertFailed(); err == nil {
		all <- prometheus.MustNewConstMetric(descriptionInsert, prometheus.CounterValue, float64(failed))
	}
}
