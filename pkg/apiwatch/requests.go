package apiwatch

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/metrics"
)

// Requests are the metrics of what is asked of the API server, by the names that all of
// Kubernetes' programs give them: rest_client_requests_total, and
// rest_client_request_duration_seconds of what is no watch. It is a
// [prometheus.Collector].
type Requests struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// CountRequests has client-go count the requests of all its clients. client-go knows one
// counter in a process, the first: call it once, where the program begins.
func CountRequests() *Requests {
	r := &Requests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rest_client_requests_total", Help: "Requests of flatnetd as a whole to the API server, by what it answered, or <error>.",
		}, []string{"code", "method", "host"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rest_client_request_duration_seconds", Help: "How long the API server took to answer a request.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}, // as of Kubernetes' programs
		}, []string{"verb", "host"}),
	}
	metrics.Register(metrics.RegisterOpts{RequestResult: resultOf{r}, RequestLatency: latencyOf{r}})
	return r
}

// Describe implements [prometheus.Collector].
func (r *Requests) Describe(all chan<- *prometheus.Desc) {
	r.total.Describe(all)
	r.duration.Describe(all)
}

// Collect implements [prometheus.Collector].
func (r *Requests) Collect(all chan<- prometheus.Metric) {
	r.total.Collect(all)
	r.duration.Collect(all)
}

type resultOf struct{ *Requests }

func (r resultOf) Increment(_ context.Context, code, method, host string) {
	r.total.WithLabelValues(code, method, host).Inc()
}

type latencyOf struct{ *Requests }

func (r latencyOf) Observe(_ context.Context, verb string, u url.URL, latency time.Duration) {
	r.duration.WithLabelValues(verb, u.Host).Observe(latency.Seconds())
}
