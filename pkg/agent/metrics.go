package agent

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/flatnet-cni/flatnet/pkg/feature"
)

// metrics are what /metrics serves: the agent's own, and those of its features.
type metrics struct {
	registry *prometheus.Registry
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	repairs  *prometheus.CounterVec
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
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flatnet_build_info", Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": c.Version, "goversion": runtime.Version(), "fabric": string(c.Fabric.Mode)},
	})
	build.Set(1)
	m.registry.MustRegister(
		m.duration, m.failures, m.repairs, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// add has a feature's metrics served from the start.
func (m *metrics) add(f feature.Feature) {
	m.registry.MustRegister(f.Metrics...)
	for _, object := range f.Repairs {
		m.repairs.WithLabelValues(object)
	}
	for _, t := range f.Tasks {
		m.failures.WithLabelValues(t.Name)
	}
}

func (m *metrics) took(t *feature.Task, d time.Duration, err error) {
	m.duration.WithLabelValues(t.Name).Observe(d.Seconds())
	if err != nil {
		m.failures.WithLabelValues(t.Name).Inc()
	}
}

// scrape collects what is known only when it is asked for.
type scrape struct{ agent *Agent }

// gauges are the agent's own, and those of its features.
func (s scrape) gauges() (all []feature.Gauge) {
	own := func(name, help string, read func() float64) {
		all = append(all, feature.Gauge{
			Description: prometheus.NewDesc(name, help, nil, nil),
			Read:        func(_ context.Context, tell func(float64, ...string)) { tell(read()) },
		})
	}
	own("flatnet_ready", "1 where /readyz says yes, else 0.", func() float64 { return truth(s.agent.unready() == nil) })
	own("flatnet_problems", "Problems that `flatnetd status` lists, without what follows from them.", func() float64 { return float64(len(s.agent.currentProblems())) })
	own("flatnet_problem_consequences", "What follows from the problems that `flatnetd status` lists.", func() float64 {
		consequences := 0
		for _, p := range s.agent.currentProblems() {
			consequences += len(p.Follows())
		}
		return float64(consequences)
	})
	for _, f := range s.agent.features {
		all = append(all, f.Gauges...)
	}
	return all
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements [prometheus.Collector].
func (s scrape) Describe(all chan<- *prometheus.Desc) {
	for _, g := range s.gauges() {
		all <- g.Description
	}
}

// Collect implements [prometheus.Collector].
func (s scrape) Collect(all chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	// What is busy is asked again at the next scrape.
	_ = s.agent.do(ctx, func() {
		for _, g := range s.gauges() {
			kind := prometheus.GaugeValue
			if g.Counts {
				kind = prometheus.CounterValue
			}
			g.Read(ctx, func(value float64, labels ...string) {
				all <- prometheus.MustNewConstMetric(g.Description, kind, value, labels...)
			})
		}
	})
}
