package agent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/health"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

var lost = health.Report{State: health.Lost, Answered: true}

// reporting is an agent of which the probes of all ways of its peers say, in their order,
// what is given, and the last of it for all others.
func reporting(t *testing.T, mode fabric.Mode, nodes []node.Node, reports ...health.Report) node1 {
	gateway := kernel.UnderlayRoute{Destination: netip.MustParsePrefix("0.0.0.0/0"), Link: "eth0", Gateway: netip.MustParseAddr("172.30.0.254")}
	a := on(t, mode, refusing{}, nodes, gateway)
	a.shared.Nodes = nodes
	var found []health.Finding
	reached := map[string]bool{}
	for _, target := range a.probing.plan() {
		if r := reports[0]; r.State == health.Lost || r.State == health.Lossy || r.FullSize == health.FullLost {
			found = append(found, health.Finding{Target: target, Report: r})
		} else {
			reached[target.Sort] = true
		}
		if len(reports) > 1 {
			reports = reports[1:]
		}
	}
	a.probing.unwell, a.probing.reached = func() []health.Finding { return found }, func() map[string]bool { return reached }
	return a
}

// probes are the problems of such an agent.
func probes(mode fabric.Mode, nodes []node.Node, reports ...health.Report) func(*testing.T) []problem.Problem {
	return func(t *testing.T) []problem.Problem { return telling(reporting(t, mode, nodes, reports...)) }
}

// Whoever is away, or has just come, need not answer; who has answered once or should have
// by now has to.
func TestWhoNeedNotAnswer(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name    string
		node    func(*node.Node)
		report  health.Report
		problem bool
	}{
		{"lost", func(*node.Node) {}, lost, true},
		{"silent", func(*node.Node) {}, health.Report{State: health.Silent, Answered: true}, false},
		{"not asked yet", func(*node.Node) {}, health.Report{State: health.Unknown}, false},
		{"away", func(n *node.Node) { n.Away = "its Node is being deleted" }, lost, false},
		{"just known", func(*node.Node) {}, health.Report{State: health.Lost, Known: now}, false},
		{"known for a while", func(*node.Node) {}, health.Report{State: health.Lost, Known: now.Add(-settlingUnknown)}, true},
		{"just created", func(n *node.Node) { n.Created = now.Add(-time.Minute) }, health.Report{State: health.Lost, Known: now.Add(-time.Minute)}, false},
		{"just created, and it has answered", func(n *node.Node) { n.Created = now.Add(-time.Minute) }, lost, true},
		{"just known, and created before", func(n *node.Node) { n.Created = now.Add(-settling) }, health.Report{State: health.Lost, Known: now}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := peer
			c.node(&n)
			a := reporting(t, fabric.Direct, []node.Node{near, n}, c.report)
			if all := telling(a); (len(all) > 0) != c.problem {
				t.Errorf("%v", all)
			}
			if held := c.report.State == health.Lost && n.Away == "" && !c.problem; held != !a.probing.settled.IsZero() {
				t.Errorf("looks again at %v", a.probing.settled)
			}
		})
	}
}

// However many nodes are lost at once, it is one problem for those by one sort of way;
// some single ones are told one by one.
func TestManyLostAreOneProblem(t *testing.T) {
	nodes := []node.Node{near}
	for i := 2; i < 102; i++ {
		nodes = append(nodes, listed(fmt.Sprintf("n%03d", i), fmt.Sprintf("172.30.0.%d", i), fmt.Sprintf("10.244.%d.0/24", i)))
	}
	well := health.Report{State: health.OK, Answered: true}
	for _, c := range []struct{ lost, problems, follows int }{{100, 1, 100}, {5, 1, 5}, {4, 4, 0}, {0, 0, 0}} {
		var reports []health.Report
		for range c.lost {
			reports = append(reports, lost)
		}
		all := telling(reporting(t, fabric.VXLAN, nodes, append(reports, well)...))
		follows := 0
		for _, p := range all {
			follows += len(p.Follows())
		}
		if c.lost == 100 {
			all = telling(reporting(t, fabric.VXLAN, nodes, lost))
		}
		if c.lost > 0 {
			// The same of what is lost in another way.
			for _, r := range []health.Report{{State: health.Lossy, Answered: true}, {State: health.OK, FullSize: health.FullLost, Answered: true}} {
				for i := range reports {
					reports[i] = r
				}
				if others := telling(reporting(t, fabric.VXLAN, nodes, append(reports, well)...)); len(others) != c.problems {
					t.Errorf("%d of %v are %d problems: %v", c.lost, r, len(others), others)
				}
			}
		}
		if len(all) != c.problems || follows != c.follows {
			t.Errorf("%d lost are %d problems with %d that follow: %v", c.lost, len(all), follows, all)
		}
	}
}

func TestHealthForPeople(t *testing.T) {
	for want, h := range map[string]*HealthStatus{
		"-":                            nil,
		"0.31ms":                       {State: "ok", Sent: 20, RoundTrip: 310},
		"12ms, 5% lost":                {State: "ok", Sent: 20, Lost: 1, RoundTrip: 12_400},
		"0.30ms, 25% lost":             {State: "lossy", Sent: 20, Lost: 5, RoundTrip: 300},
		"LOST":                         {State: "lost", Sent: 20, Lost: 20},
		"no probes there":              {State: "silent"},
		"0.30ms, LARGE LOST":           {State: "ok", Sent: 20, RoundTrip: 300, FullSize: "lost"},
		"ok":                           {State: "ok", Sent: 1},
		"0.30ms, 10% lost, LARGE LOST": {State: "lossy", Sent: 20, Lost: 2, RoundTrip: 300, FullSize: "lost"},
	} {
		if got := h.text(); got != want {
			t.Errorf("%+v is %q, want %q", h, got, want)
		}
	}
}

func TestHealthOfAPeer(t *testing.T) {
	at := time.Unix(1000, 0)
	way := func(h *HealthStatus) WayStatus { return WayStatus{Health: h} }
	got := sumHealth([]WayStatus{
		way(nil), way(&HealthStatus{State: "ok", Sent: 20, Lost: 1, RoundTrip: 300, Since: at, FullSize: "ok"}),
		way(&HealthStatus{State: "lossy", Sent: 10, Lost: 4, RoundTrip: 200, Since: at.Add(time.Hour), FullSize: "lost"}),
	})
	if want := (HealthStatus{State: "lossy", Sent: 30, Lost: 5, RoundTrip: 300, Since: at.Add(time.Hour), FullSize: "lost"}); *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
	if got := sumHealth([]WayStatus{way(nil)}); got != nil {
		t.Errorf("of nothing: %+v", got)
	}
}
