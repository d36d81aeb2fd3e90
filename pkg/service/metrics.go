package service

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what /metrics says about Services. Observe is for a [Controller].
type Metrics struct {
	services, fronts, conflicts prometheus.Gauge
	synced                      prometheus.Gauge
	duration                    *prometheus.HistogramVec
	failures                    prometheus.Counter
	elements                    prometheus.Counter
	repairs                     prometheus.Counter
	latency                     prometheus.Histogram
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		services: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flatnet_services", Help: "Services that are balanced.",
		}),
		fronts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flatnet_service_fronts", Help: "Addresses and ports by which Services are reached.",
		}),
		conflicts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flatnet_service_conflicts", Help: "Addresses and ports that more than one Service claims.",
		}),
		synced: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flatnet_service_synced", Help: "1 where the last sync of the rules succeeded, else 0.",
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flatnet_service_sync_duration_seconds", Help: "How long a sync of the rules took, by whether everything was compared (full) or what had changed (partial).",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
		}, []string{"kind"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flatnet_service_sync_failures_total", Help: "Syncs of the rules that failed, and were tried again.",
		}),
		elements: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flatnet_service_elements_changed_total", Help: "Elements of sets and maps that were added or deleted.",
		}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flatnet_service_repairs_total", Help: "Tables, chains and sets that somebody had changed, and that were made right.",
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flatnet_service_programming_duration_seconds", Help: "Time from the change of an endpoint, as the API says when it was, to its rule.",
			Buckets: []float64{.01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300},
		}),
	}
	registry.MustRegister(m.services, m.fronts, m.conflicts, m.synced, m.duration, m.failures, m.elements, m.repairs, m.latency)
	return m
}

// Observe takes note of a sync.
func (m *Metrics) Observe(o Observation) {
	kind := "partial"
	if o.Verified {
		kind = "full"
	}
	m.duration.WithLabelValues(kind).Observe(o.Duration.Seconds())
	m.services.Set(float64(o.Services))
	m.fronts.Set(float64(o.Fronts))
	m.conflicts.Set(float64(o.Conflicts))
	if o.Err != nil {
		m.failures.Inc()
		m.synced.Set(0)
		return
	}
	m.synced.Set(1)
	m.elements.Add(float64(o.Elements))
	m.repairs.Add(float64(len(o.Found)))
	for _, l := range o.Latencies {
		m.latency.Observe(l.Seconds())
	}
}
