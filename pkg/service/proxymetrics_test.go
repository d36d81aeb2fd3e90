package service

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestChanges: what the API server tells is counted, and what matters waits until it
// is taken.
func TestChanges(t *testing.T) {
	l := newListed()
	services, endpoints := serviceStore(l), sliceStore(l)
	step := func(what string, err error, want string) {
		t.Helper()
		must(t, err)
		c := l.changes()
		if got := fmt.Sprintf("%d %d, pending %d %d", c.Services, c.Slices, c.PendingServices, c.PendingSlices); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	if last := l.changes().Last; !last.IsZero() {
		t.Errorf("a change at %s, before any", last)
	}
	step("a list of Services", services.Replace([]any{serviceObject("a", 80), serviceObject("b", 81)}, ""), "2 0, pending 2 0")
	step("one of EndpointSlices", endpoints.Replace([]any{sliceObject("a-1", "a", "10.244.1.1")}, ""), "2 1, pending 2 1")
	first := l.changes().Last
	if first.IsZero() {
		t.Error("changes at no time")
	}
	l.take()
	step("taken", nil, "2 1, pending 0 0")
	step("a list that says the same", services.Replace([]any{serviceObject("a", 80), serviceObject("b", 81)}, ""), "2 1, pending 0 0")
	same := serviceObject("a", 80)
	same.Annotations = map[string]string{"irrelevant": "yes"}
	step("a change that does not matter", services.Update(same), "3 1, pending 0 0")
	if !l.changes().Last.Equal(first) {
		t.Error("what does not matter asks for a sync")
	}
	step("a change", services.Update(serviceObject("a", 82)), "4 1, pending 1 0")
	if !l.changes().Last.After(first) {
		t.Error("a change does not ask for a sync")
	}
	step("another of the same Service", services.Update(serviceObject("a", 83)), "5 1, pending 1 0")
	step("one of an endpoint", endpoints.Update(sliceObject("a-1", "a", "10.244.1.2")), "5 2, pending 1 1")
	step("and another", endpoints.Update(sliceObject("a-1", "a", "10.244.1.3")), "5 3, pending 1 2")
	step("of a Service without change", endpoints.Add(sliceObject("b-1", "b", "10.244.1.9")), "5 4, pending 1 3")
	step("a Service goes", services.Delete(serviceObject("b", 81)), "6 4, pending 2 3")
	step("a list without one", endpoints.Replace([]any{sliceObject("a-1", "a", "10.244.1.3")}, ""), "6 5, pending 2 4")
	l.take()
	step("taken again", nil, "6 5, pending 0 0")
}

// proxySeries are the time series, in the order of their names; of a histogram, how
// many values it has, and in how many buckets.
func proxySeries(t *testing.T, registry *prometheus.Registry) []string {
	t.Helper()
	all, err := registry.Gather()
	must(t, err)
	var lines []string
	for _, family := range all {
		for _, m := range family.Metric {
			name := strings.TrimPrefix(family.GetName(), "kubeproxy_")
			for _, l := range m.Label {
				name += fmt.Sprintf("{%s=%s}", l.GetName(), l.GetValue())
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if h := m.GetHistogram(); h != nil {
				name += fmt.Sprintf("/%d", len(h.Bucket))
				value = float64(h.GetSampleCount())
			}
			lines = append(lines, fmt.Sprintf("%s %.1f", name, value))
		}
	}
	return lines
}

func TestProxyMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	var changes Changes
	var asked time.Time
	m := NewProxyMetrics(registry, func() Changes { return changes }, func() time.Time { return asked })
	check := func(what string, want ...string) {
		t.Helper()
		if got := proxySeries(t, registry); !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	check("nothing has happened",
		"network_programming_duration_seconds/80 0.0",
		"sync_full_proxy_rules_duration_seconds/15 0.0",
		"sync_partial_proxy_rules_duration_seconds/15 0.0",
		"sync_proxy_rules_duration_seconds/15 0.0",
		"sync_proxy_rules_endpoint_changes_pending 0.0",
		"sync_proxy_rules_endpoint_changes_total 0.0",
		"sync_proxy_rules_nftables_sync_failures_total 0.0",
		"sync_proxy_rules_service_changes_pending 0.0",
		"sync_proxy_rules_service_changes_total 0.0",
	)
	changes = Changes{Services: 5, Slices: 7, PendingServices: 2, PendingSlices: 3, Last: time.Unix(2000, 500_000_000)}
	asked = time.Unix(1000, 0)
	m.Observe(Observation{Duration: time.Second, Latencies: []time.Duration{time.Second, time.Minute}, at: time.Unix(1500, 0)})
	m.Observe(Observation{Duration: time.Second, Verified: true, at: time.Unix(2001, 0)})
	m.Observe(Observation{Duration: time.Second, Result: Result{compared: true}, at: time.Unix(2002, 0)})
	m.Observe(Observation{Duration: time.Second, Err: errors.New("nft fails"), at: time.Unix(2003, 0)})
	m.Healthz(http.StatusOK)
	m.Healthz(http.StatusServiceUnavailable)
	m.Livez(http.StatusOK)
	want := []string{
		"network_programming_duration_seconds/80 2.0",
		"proxy_healthz_total{code=200} 1.0",
		"proxy_healthz_total{code=503} 1.0",
		"proxy_livez_total{code=200} 1.0",
		"sync_full_proxy_rules_duration_seconds/15 2.0",
		"sync_partial_proxy_rules_duration_seconds/15 2.0",
		"sync_proxy_rules_duration_seconds/15 4.0",
		"sync_proxy_rules_endpoint_changes_pending 3.0",
		"sync_proxy_rules_endpoint_changes_total 7.0",
		"sync_proxy_rules_last_queued_timestamp_seconds 2000.5",
		"sync_proxy_rules_last_timestamp_seconds 2002.0",
		"sync_proxy_rules_nftables_sync_failures_total 1.0",
		"sync_proxy_rules_service_changes_pending 2.0",
		"sync_proxy_rules_service_changes_total 5.0",
	}
	check("much has happened", want...)
	asked = time.Unix(3000, 0)
	want[9] = "sync_proxy_rules_last_queued_timestamp_seconds 3000.0"
	check("somebody else has asked", want...)
}

// TestAsked: the node, and who damages the tables, ask for a sync.
func TestAsked(t *testing.T) {
	idle := NewController(newMemory(), nil, slog.New(slog.DiscardHandler))
	if asked := idle.Asked(); !asked.IsZero() {
		t.Errorf("asked at %s, by nobody", asked)
	}
	if idle.SetNode(nodeN(1)); idle.Asked().IsZero() {
		t.Error("the node does not ask")
	}
	r := run(t)
	r.SetNode(nodeN(1))
	r.tell(Batch{Set: many(1, 1)})
	r.await("the first sync", func(o Observation) bool { return o.Services == 1 && o.Err == nil })
	before := r.Asked()
	_, err := r.ns.Output("nft", "flush ruleset")
	must(t, err)
	r.await("the repair", func(o Observation) bool { return len(o.Found) > 0 && o.Err == nil })
	if !r.Asked().After(before) {
		t.Error("who flushed the ruleset has not asked")
	}
}
