package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// proxies are what answers in kube-proxy's place: load balancers, and monitoring. It
// has a registry of its own, so that what scrapes both addresses does not get anything
// twice by two names.
func (s *services) proxies(requests *apiwatch.Requests) []*standIn {
	s.asProxy.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if requests != nil {
		s.asProxy.MustRegister(requests)
	}
	metrics := service.NewProxyMetrics(s.asProxy, s.source.Changes, s.controller.Asked)
	ours := s.controller.Observe
	s.controller.Observe = func(o service.Observation) {
		ours(o)
		metrics.Observe(o)
	}
	var all []*standIn
	add := func(flag, address string, handler http.Handler, kind problem.Kind) {
		if address != "" {
			all = append(all, &standIn{flag: flag, address: address, handler: handler, kind: kind, changed: s.task.Ask})
		}
	}
	add("services-health", s.config.ServicesHealth, s.healthAsProxy(metrics), problem.NodeHealth)
	add("services-metrics", s.config.ServicesMetrics, s.statusAsProxy(), problem.ProxyMetrics)
	return all
}

// healthAsProxy answers what kube-proxy answers at its --healthz-bind-address: whether
// the node balances, and at /healthz also whether it stays (KEP-3836): a node that is
// about to go still serves the connections that it has, but gets no new ones.
func (s *services) healthAsProxy(metrics *service.ProxyMetrics) http.Handler {
	answer := func(w http.ResponseWriter, eligible *bool, count func(status int)) {
		now := time.Now().UTC()
		healthy := s.controller.Check() == nil
		updated := s.controller.Summary().Updated.UTC()
		status := http.StatusOK
		if healthy && (eligible == nil || *eligible) {
			updated = now // as of kube-proxy: nothing is due
		} else {
			status = http.StatusServiceUnavailable
		}
		count(status)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		// The reader may have gone away.
		_ = json.NewEncoder(w).Encode(struct {
			LastUpdated  time.Time `json:"lastUpdated"`
			CurrentTime  time.Time `json:"currentTime"`
			NodeEligible *bool     `json:"nodeEligible,omitempty"`
			Healthy      bool      `json:"healthy"`
		}{updated, now, eligible, healthy})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		eligible := *s.leaving.Load() == ""
		answer(w, &eligible, metrics.Healthz)
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil, metrics.Livez) })
	return mux
}

// proxyMode is what balances, by kube-proxy's name for it.
const proxyMode = "nftables"

// statusAsProxy answers what kube-proxy answers at its --metrics-bind-address.
func (s *services) statusAsProxy() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", serveHealth(s.Do))
	mux.HandleFunc("GET /proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		fmt.Fprint(w, proxyMode)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.asProxy, promhttp.HandlerOpts{}))
	return mux
}
