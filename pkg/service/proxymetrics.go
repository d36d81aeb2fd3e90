package service

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ProxyMetrics are those metrics of kube-proxy that mean the same of a [Controller], by
// kube-proxy's names and with its buckets, so that its dashboards and alerts show flatnet
// too. There is no label ip_family, which kube-proxy's got lately: one sync is of both
// families.
//
// Left out is what would mean something else: that of iptables, of winkernel, of
// conntrack's reconciler and of the cleanup of chains, which do not happen here.
type ProxyMetrics struct {
	sync, full, partial prometheus.Histogram
	latency             prometheus.Histogram
	failures            prometheus.Counter
	healthz, livez      *prometheus.CounterVec
	synced              atomic.Int64 // when a sync last succeeded, in nanoseconds since 1970; 0: none has
}

// NewProxyMetrics registers the metrics. changes returns what the source has told, asked
// when somebody else last asked for a sync ([Controller.Asked]); both are called at each
// scrape.
func NewProxyMetrics(registry prometheus.Registerer, changes func() Changes, asked func() time.Time) *ProxyMetrics {
	syncBuckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	probes := func(path string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubeproxy_proxy_" + path + "_total", Help: "Answers at /" + path + " by their HTTP status."}, []string{"code"})
	}
	m := &ProxyMetrics{
		sync:    histogram("kubeproxy_sync_proxy_rules_duration_seconds", "How long a sync of the rules took, those too that failed.", syncBuckets),
		full:    histogram("kubeproxy_sync_full_proxy_rules_duration_seconds", "How long a sync took that compared everything.", syncBuckets),
		partial: histogram("kubeproxy_sync_partial_proxy_rules_duration_seconds", "How long a sync took of what had changed.", syncBuckets),
		latency: histogram("kubeproxy_network_programming_duration_seconds", "Time from the change of an endpoint, as the API says when it was, to its rule, with the buckets of Kubernetes' objective.", programmingBuckets()),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", Help: "Syncs of the rules that failed.",
		}),
		healthz: probes("healthz"), livez: probes("livez"),
	}
	registry.MustRegister(m.sync, m.full, m.partial, m.latency, m.failures, m.healthz, m.livez, proxyScrape{m, changes, asked})
	return m
}

// programmingBuckets are kube-proxy's, which are those of Kubernetes' objective for the
// latency of network programming: up to five minutes.
func programmingBuckets() []float64 {
	buckets := prometheus.LinearBuckets(0.25, 0.25, 2)
	buckets = append(buckets, prometheus.LinearBuckets(1, 1, 59)...)
	buckets = append(buckets, prometheus.LinearBuckets(60, 5, 12)...)
	return append(buckets, prometheus.LinearBuckets(120, 30, 7)...)
}

// Observe takes note of a sync.
func (m *ProxyMetrics) Observe(o Observation) {
	m.sync.Observe(o.Duration.Seconds())
	if o.Verified || o.compared {
		m.full.Observe(o.Duration.Seconds())
	} else {
		m.partial.Observe(o.Duration.Seconds())
	}
	if o.Err != nil {
		m.failures.Inc()
		return
	}
	m.synced.Store(o.at.UnixNano())
	for _, l := range o.Latencies {
		m.latency.Observe(l.Seconds())
	}
}

// Healthz counts an answer at /healthz with this status.
func (m *ProxyMetrics) Healthz(status int) { m.healthz.WithLabelValues(strconv.Itoa(status)).Inc() }

// Livez counts an answer at /livez with this status.
func (m *ProxyMetrics) Livez(status int) { m.livez.WithLabelValues(strconv.Itoa(status)).Inc() }

// proxyScrape collects what is true at the time of a scrape, also where a sync hangs.
type proxyScrape struct {
	*ProxyMetrics
	changes func() Changes
	asked   func() time.Time
}

var (
	proxySynced           = prometheus.NewDesc("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "When a sync of the rules last succeeded; not there before the first.", nil, nil)
	proxyAsked            = prometheus.NewDesc("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "When a sync of the rules was last asked for: by a change of a Service, an EndpointSlice or the node, by somebody who touched the tables, by the clock. Much later than when one last succeeded: a sync hangs.", nil, nil)
	proxyServices         = prometheus.NewDesc("kubeproxy_sync_proxy_rules_service_changes_total", "Changes of Services that the API server has told.", nil, nil)
	proxyServicesPending  = prometheus.NewDesc("kubeproxy_sync_proxy_rules_service_changes_pending", "Services with changes that no sync has taken up yet.", nil, nil)
	proxyEndpoints        = prometheus.NewDesc("kubeproxy_sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices that the API server has told.", nil, nil)
	proxyEndpointsPending = prometheus.NewDesc("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "Changes of EndpointSlices that no sync has taken up yet.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (proxyScrape) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{proxySynced, proxyAsked, proxyServices, proxyServicesPending, proxyEndpoints, proxyEndpointsPending} {
		all <- d
	}
}

// Collect implements [prometheus.Collector]. A time that has not come is not told: 0
// would be read as 1970.
func (s proxyScrape) Collect(all chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, kind prometheus.ValueType, value float64) {
		all <- prometheus.MustNewConstMetric(d, kind, value)
	}
	if synced := s.synced.Load(); synced != 0 {
		tell(proxySynced, prometheus.GaugeValue, float64(synced)/float64(time.Second))
	}
	c := s.changes()
	asked := s.asked()
	if c.Last.After(asked) {
		asked = c.Last
	}
	if !asked.IsZero() {
		tell(proxyAsked, prometheus.GaugeValue, float64(asked.UnixNano())/float64(time.Second))
	}
	tell(proxyServices, prometheus.CounterValue, float64(c.Services))
	tell(proxyServicesPending, prometheus.GaugeValue, float64(c.PendingServices))
	tell(proxyEndpoints, prometheus.CounterValue, float64(c.Slices))
	tell(proxyEndpointsPending, prometheus.GaugeValue, float64(c.PendingSlices))
}
