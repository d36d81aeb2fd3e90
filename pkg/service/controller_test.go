package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// memory is a source that tests write to.
type memory struct {
	changed chan struct{}
	mu      sync.Mutex
	batch   Batch
	known   bool
}

func newMemory() *memory { return &memory{changed: make(chan struct{}, 1)} }

func (m *memory) Run(ctx context.Context)  { <-ctx.Done() }
func (m *memory) Changed() <-chan struct{} { return m.changed }
func (m *memory) Check() error             { return nil }

func (m *memory) Known() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known
}

func (m *memory) Take() Batch {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.batch
	m.batch = Batch{}
	return b
}

func (m *memory) tell(b Batch) {
	m.mu.Lock()
	m.known = true
	m.batch.Set = append(m.batch.Set, b.Set...)
	m.batch.Deleted = append(m.batch.Deleted, b.Deleted...)
	m.batch.Triggered = append(m.batch.Triggered, b.Triggered...)
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// reports is a reporter that remembers.
type reports struct {
	mu  sync.Mutex
	all []string
}

func (r *reports) Report(_ context.Context, about Name, _, reason, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, fmt.Sprintf("%s %s: %s", about, reason, message))
}

func (r *reports) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.all, "; ")
}

// gated are tables that something has to be done before they are written, or in the
// place of it.
type gated struct {
	tables
	before atomic.Pointer[func() error]
}

func (g *gated) gate() error {
	if f := g.before.Load(); f != nil {
		return (*f)()
	}
	return nil
}

func (g *gated) Sync(ctx context.Context, want []nft.Table, deltas ...nft.Delta) (nft.Result, bool, error) {
	if err := g.gate(); err != nil {
		return nft.Result{}, false, err
	}
	return g.tables.Sync(ctx, want, deltas...)
}

func (g *gated) Verify(ctx context.Context, want []nft.Table) (nft.Result, error) {
	if err := g.gate(); err != nil {
		return nft.Result{}, err
	}
	return g.tables.Verify(ctx, want)
}

// running is a controller at work in a namespace of its own.
type running struct {
	*Controller
	*memory
	*reports
	t        *testing.T
	ns       *netlab.Namespace
	observed chan Observation
	log      bytes.Buffer
	gate     *gated
}

func run(t *testing.T) *running {
	t.Helper()
	r := &running{memory: newMemory(), reports: &reports{}, t: t, observed: make(chan Observation, 1000)}
	var k *Keeper
	k, r.ns = labKeeper(t)
	r.gate = &gated{tables: k.tables}
	k.tables = r.gate
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	r.Controller = NewController(r.memory, k, log)
	r.Reporter = r.reports
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry)
	r.Observe = func(o Observation) {
		metrics.Observe(o)
		r.observed <- o
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.ns.Do(func() error { r.Controller.Run(ctx); return nil }) }()
	watched := monitor(t, r.ns, r.Watcher())
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("controller ended with %v", err)
		}
		watched()
		if all, err := registry.Gather(); err != nil || len(all) != 9 {
			t.Errorf("%d metrics, %v", len(all), err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", r.log.String())
		}
	})
	return r
}

// await waits for an observation of which f says that it is the one.
func (r *running) await(what string, f func(Observation) bool) Observation {
	r.t.Helper()
	deadline := time.After(pace.Far())
	for {
		select {
		case o := <-r.observed:
			if f(o) {
				return o
			}
		case <-deadline:
			r.t.Fatalf("waiting for %s", what)
		}
	}
}

func (r *running) has(text string) bool {
	r.t.Helper()
	out, err := r.ns.Output("nft", "list", "ruleset")
	must(r.t, err)
	return strings.Contains(out, text)
}

func TestController(t *testing.T) {
	r := run(t)
	web := worldOf(t, "web cluster=10.96.0.1 80 external=192.0.2.1 created=1\n  8080 10.244.1.5@n1 10.244.2.6@n2")
	// Nothing is written before both node and Services are known.
	r.SetNode(nodeN(2))
	r.SetNode(nodeN(1))
	if err := r.Controller.Check(); err == nil {
		t.Error("synced before anything is known")
	}
	r.tell(Batch{Set: []Service{web}, Triggered: []time.Time{time.Now(), time.Now().Add(-time.Hour)}})
	o := r.await("the first sync", func(o Observation) bool { return o.Services == 1 })
	if o.Err != nil || len(o.Latencies) != 1 || o.Latencies[0] <= 0 || o.Fronts != 2 {
		t.Errorf("first sync: %+v", o)
	}
	must(t, r.Controller.Check())
	if !r.has("10.96.0.1 . tcp . 80 comment \"default/web\" : goto lb-tcp-2") {
		t.Error("the Service is not there")
	}
	// A change, somebody's damage, a conflict.
	web = worldOf(t, "web cluster=10.96.0.1 80 external=192.0.2.1 created=1\n  8080 10.244.1.5@n1")
	r.tell(Batch{Set: []Service{web}})
	// The facts about the node that were told first may have been used, and
	// replaced, before that.
	r.await("the change", func(o Observation) bool { return r.has("goto lb-tcp-1") && len(o.Found) == 0 })
	_, err := r.ns.Output("nft", "flush ruleset")
	must(t, err)
	r.await("the repair", func(o Observation) bool { return o.Verified && len(o.Found) > 0 && o.Err == nil })
	if !r.has("goto lb-tcp-1") {
		t.Error("what was flushed is not there")
	}
	r.tell(Batch{Set: []Service{worldOf(t, "late cluster=10.96.0.2 80 external=192.0.2.1 created=2")}})
	r.await("the conflict", func(o Observation) bool { return o.Conflicts == 1 })
	const want = "default/late AddressConflict: external IP port 80 of 192.0.2.1 leads to default/web, which has it as external IP: choose another address or port"
	if s, err := r.Status(t.Context()); err != nil || len(s.Ports) != 2 || len(s.Conflicts) != 1 || !s.Synced {
		t.Errorf("status is %+v, %v", s, err)
	}
	if got := r.reports.String(); got != want {
		t.Errorf("reported %q", got)
	}
	// Another set of facts, and a Service less.
	r.SetNode(nodeN(2))
	r.tell(Batch{Deleted: []Name{web.Name}})
	r.await("the deletion", func(o Observation) bool { return o.Services == 1 && o.Conflicts == 0 })
	if _, err := r.Status(t.Context()); err != nil || r.has("10.96.0.1 ") {
		t.Error("the deleted Service is there")
	}
	if got := r.reports.String(); got != want {
		t.Errorf("reported again: %q", got)
	}
}

// TestControllerRetries: what fails is tried again, with all that came meanwhile.
func TestControllerRetries(t *testing.T) {
	r := run(t)
	broken := func() error { return errors.New("it is broken") }
	r.gate.before.Store(&broken)
	r.SetNode(nodeN(1))
	r.tell(Batch{Set: []Service{worldOf(t, "web cluster=10.96.0.1 80")}})
	r.await("a failure", func(o Observation) bool { return o.Err != nil && strings.Contains(o.Err.Error(), "it is broken") })
	if r.Controller.Check() == nil {
		t.Error("synced though writing fails")
	}
	r.tell(Batch{Set: []Service{worldOf(t, "other cluster=10.96.0.2 80")}})
	r.gate.before.Store(nil)
	r.await("success", func(o Observation) bool { return o.Err == nil && o.Services == 2 })
	if !r.has("10.96.0.1 . tcp . 80") || !r.has("10.96.0.2 . tcp . 80") {
		t.Error("the Services are not there")
	}
}

// TestControllerCoalesces: all changes that come while one is written are one sync,
// and the last one counts. However slow the kernel is, it is not asked once for each.
func TestControllerCoalesces(t *testing.T) {
	r := run(t)
	r.SetNode(nodeN(1))
	r.tell(Batch{Set: many(20, 3)})
	r.await("the first sync", func(o Observation) bool { return o.Services == 20 })
	const rounds, changes = 3, 500
	for round := range rounds {
		held, hold := make(chan struct{}), make(chan struct{})
		once := sync.OnceFunc(func() { close(held) })
		wait := func() error { once(); <-hold; return nil }
		r.gate.before.Store(&wait)
		for i := range changes {
			s := many(20, 3)[i%20]
			s.Slices[0].Endpoints[2].Address = netip.AddrFrom4([4]byte{10, byte(250 + round), byte(i >> 8), byte(i)})
			r.tell(Batch{Set: []Service{s}})
			if i == 0 {
				select {
				case <-held:
				case <-time.After(pace.Far()):
					t.Fatal("nothing is written")
				}
			}
		}
		r.gate.before.Store(nil)
		close(hold)
		syncs := 0
		last := fmt.Sprintf("10.%d.%d.%d . 8080", 250+round, (changes-1)>>8, (changes-1)&0xff)
		r.await("the last change", func(Observation) bool {
			syncs++
			return r.has(last)
		})
		// The one that was held, the one with all the others, and what the kernel told
		// meanwhile of the former.
		if syncs > 5 {
			t.Errorf("%d changes were %d syncs", changes, syncs)
		}
		for len(r.observed) > 0 {
			<-r.observed
		}
	}
}

func TestHealth(t *testing.T) {
	n := nodeN(1)
	n.NodePortAddresses = addresses([]string{"127.0.0.1", "::1"})
	p := NewPlanner(n)
	healthy := true
	var log bytes.Buffer
	h := newHealth(slog.New(slog.NewTextHandler(&log, nil)), func() bool { return healthy })
	defer h.close()
	apply := func(services string) {
		for name := range p.services {
			p.Delete(name)
		}
		for _, s := range world(t, services) {
			p.Set(s)
		}
		h.apply(p.health())
	}
	expect := func(port int, status int, want string) {
		t.Helper()
		for _, host := range []string{"127.0.0.1", "[::1]"} {
			answer, err := http.Get(fmt.Sprintf("http://%s:%d/healthz", host, port))
			if err != nil {
				if status != 0 {
					t.Error(err)
				}
				continue
			}
			text, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			got := strings.Join(strings.Fields(string(text)), "") + " " + answer.Header.Get("X-Load-Balancing-Endpoint-Weight")
			if answer.StatusCode != status || got != want {
				t.Errorf("%s port %d: %d %s", host, port, answer.StatusCode, got)
			}
		}
	}
	apply("web cluster=10.96.0.1 80 81 health=31000\n  8080 10.244.1.5@n1 10.244.1.6@n1!terminating 10.244.2.6@n2\n  81 10.244.1.5@n1\nother cluster=10.96.0.2 80 health=31001\n  80 10.244.2.6@n2")
	expect(31000, 200, `{"service":{"namespace":"default","name":"web"},"localEndpoints":1,"serviceProxyHealthy":true} 1`)
	expect(31001, 503, `{"service":{"namespace":"default","name":"other"},"localEndpoints":0,"serviceProxyHealthy":true} 0`)
	healthy = false
	expect(31000, 503, `{"service":{"namespace":"default","name":"web"},"localEndpoints":1,"serviceProxyHealthy":false} 1`)
	healthy = true
	// A port that changes its Service, and one that is in use.
	apply("other cluster=10.96.0.2 80 health=31000\n  80 10.244.1.6@n1 10.244.1.7@n1\nthird cluster=10.96.0.3 80 health=31000")
	expect(31000, 200, `{"service":{"namespace":"default","name":"other"},"localEndpoints":2,"serviceProxyHealthy":true} 2`)
	expect(31001, 0, "")
	if n := strings.Count(log.String(), "cannot answer load balancers"); n != 2 || len(h.failed) != 2 {
		t.Errorf("%d failures were logged, %d are known:\n%s", n, len(h.failed), log.String())
	}
	apply("third cluster=10.96.0.3 80 health=31000")
	expect(31000, 503, `{"service":{"namespace":"default","name":"third"},"localEndpoints":0,"serviceProxyHealthy":true} 0`)
	apply("")
	expect(31000, 0, "")
	if len(h.servers)+len(h.failed) > 0 {
		t.Error("something is left")
	}
}

func TestPrintStatus(t *testing.T) {
	p := NewPlanner(nodeN(1))
	for _, s := range world(t, `
web cluster=10.96.0.1,fd00:96::1 http:80@30080 lb=192.0.2.1 ranges=198.51.100.0/24 affinity=10800 created=1
  http:8080 10.244.1.5@n1 10.244.2.6@n2
  http:8080 fd00:244:1::5@n1
far cluster=10.96.0.2 80@30081 local=internal,external created=2
  8080 10.244.2.6@n2
empty cluster=10.96.0.3 53/udp external=192.0.2.9 created=3
late cluster=10.96.0.4 53/udp external=192.0.2.9 created=4`) {
		p.Set(s)
	}
	s := Status{Synced: true}
	p.status(&s)
	var b strings.Builder
	s.Print(&b)
	golden(t, "status.txt", b.String())
	b.Reset()
	Status{Node: "n1", Source: errors.New("watching services: failing").Error()}.Print(&b)
	if got := b.String(); got != "node n1: 0 Services with 0 endpoints, rules NOT YET as wanted (0 rules)\nwatching services: failing\n" {
		t.Errorf("an empty status is\n%s", got)
	}
}
