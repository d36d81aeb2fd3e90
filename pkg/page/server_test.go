package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fixed is a source that says always the same.
type fixed struct {
	overview *Overview
	fails    error
	says     map[string]string // by node and what it is about

	mu    sync.Mutex
	asked []string
	most  atomic.Int64 // at once
	now   atomic.Int64
}

func (f *fixed) Overview(context.Context) (*Overview, error) {
	f.note("overview")
	if f.fails != nil {
		return nil, f.fails
	}
	copied := *f.overview
	return &copied, nil
}

func (f *fixed) Ask(_ context.Context, node string, about About, pod string) ([]byte, error) {
	f.note(strings.TrimSpace(node + " " + string(about) + " " + pod))
	f.most.Store(max(f.most.Load(), f.now.Add(1)))
	defer f.now.Add(-1)
	if said, is := f.says[node+" "+string(about)]; is {
		return []byte(said), nil
	}
	return nil, errors.New("pods is forbidden: User \"eve\" cannot create resource \"pods/exec\"")
}

func (f *fixed) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what)
}

func (f *fixed) count(what string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.asked {
		if a == what {
			n++
		}
	}
	return n
}

func three() *Overview {
	return &Overview{Of: OfCluster, Name: "it", Nodes: []Node{
		{Name: "n3", State: "no answer", Wrong: true, Reason: "why"}, {Name: "n1", State: "ready", Answers: true}, {Name: "n2", State: "ready", Answers: true},
	}}
}

// asks returns the JSON at an address.
func asks[T any](t *testing.T, c *http.Client, address string) (found T) {
	t.Helper()
	status, body, _ := get(t, c, address)
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", address, status, body)
	}
	if err := json.Unmarshal([]byte(body), &found); err != nil {
		t.Fatalf("%s: %v\n%s", address, err, body)
	}
	return found
}

// Nobody is asked twice for what is known, and all who look see the same.
func TestAsksOnce(t *testing.T) {
	source := &fixed{overview: three()}
	server := New(source)
	server.Interval = time.Hour
	browser, below := entered(t, served(t, server))
	if n := source.count("overview"); n != 0 {
		t.Errorf("nobody looks, and it was asked %d times", n)
	}
	var looking sync.WaitGroup
	for range 10 {
		looking.Go(func() {
			if status, body, _ := get(t, browser, below+"data"); status != http.StatusOK || !strings.Contains(body, "1 of 3 nodes is not well: n3 (no answer)") {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	looking.Wait()
	if n := source.count("overview"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	_, _, h := get(t, browser, below+"data")
	if status, _, _ := get(t, browser, below+"data", "If-None-Match", h.Get("ETag")); status != http.StatusNotModified {
		t.Errorf("what is known is told again: %d", status)
	}
	for _, name := range []string{"X-Age", "X-Next"} {
		if h.Get(name) == "" {
			t.Errorf("%s is not told", name)
		}
	}
}

func TestFailureIsTold(t *testing.T) {
	browser, below := entered(t, served(t, New(&fixed{fails: errors.New("connection refused")})))
	if got := asks[failure](t, browser, below+"data"); got.Failure != "connection refused" {
		t.Error(got)
	}
}

// What the reader may not read is said, for each node, and a node that does not answer is
// not asked again.
func TestDetails(t *testing.T) {
	source := &fixed{overview: three(), says: map[string]string{
		"n1 pods":     `{"pods":[{"pod":"a/b","addresses":["10.0.0.1"],"hostInterface":"veth1","hostPorts":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"},{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"fd00::1"}],"bandwidth":{"ingress":{"rate":8000}},"since":"2026-01-01T00:00:00Z","faults":[{"word":"route missing","reason":"why"}]},{"containerID":"c1","addresses":[],"since":""}]}`,
		"n1 services": `{ "node": "n1" }`,
		"n1 policies": `nothing`,
	}}
	server := New(source)
	browser, below := entered(t, served(t, server))
	type row struct {
		Node, Fault string
		Says        json.RawMessage
	}
	type document struct{ Nodes []row }
	all := asks[document](t, browser, below+"ask?about=pods")
	const pods = `[{"pod":"a/b","addresses":["10.0.0.1"],"interface":"veth1","ports":["80/tcp → 8080","[fd00::1]:53/udp → 53"],"ingress":8000,"since":"2026-01-01T00:00:00Z","wrong":["route missing: why"]},{"pod":"c1","addresses":[],"interface":"","since":""}]`
	if len(all.Nodes) != 2 || all.Nodes[0].Node != "n1" || string(all.Nodes[0].Says) != pods || !strings.Contains(all.Nodes[1].Fault, `User "eve" cannot create`) {
		t.Errorf("got %+v, %s", all, all.Nodes[0].Says)
	}
	if source.count("n3 pods") != 0 {
		t.Error("n3 was asked, which does not answer")
	}
	one := asks[document](t, browser, below+"ask?about=services&node=n1")
	if len(one.Nodes) != 1 || string(one.Nodes[0].Says) != `{"node":"n1"}` {
		t.Errorf("got %+v", one)
	}
	if got := asks[document](t, browser, below+"ask?about=policies&node=n1"); !strings.Contains(got.Nodes[0].Fault, "reading flatnetd's answer") {
		t.Errorf("got %+v", got)
	}
}

// Who does not do something is not asked about it, and flows are those of one pod.
func TestAsksWhoKnows(t *testing.T) {
	source := &fixed{overview: three(), says: map[string]string{"n2 bgp": `{"peers":[]}`, "n1 announcements": `{}`, "n1 flows": `{"flows":[]}`}}
	source.overview.Nodes[1].Balancer, source.overview.Nodes[2].BGP = &Balancer{}, &Sessions{}
	browser, below := entered(t, served(t, New(source)))
	type document struct {
		Nodes []struct{ Node, Fault string }
	}
	for about, node := range map[About]string{BGP: "n2", Balancers: "n1"} {
		if got := asks[document](t, browser, below+"ask?about="+string(about)); len(got.Nodes) != 1 || got.Nodes[0].Node != node || got.Nodes[0].Fault != "" {
			t.Errorf("%s: %+v", about, got)
		}
	}
	if got := asks[document](t, browser, below+"ask?about=flows&node=n1&pod=a%2Fb"); len(got.Nodes) != 1 || source.count("n1 flows a/b") != 1 {
		t.Errorf("%+v, asked is %q", got, source.asked)
	}
	for _, query := range []string{"about=flows", "about=flows&node=n1", "about=flows&pod=a"} {
		if status, body, _ := get(t, browser, below+"ask?"+query); status != http.StatusBadRequest || !strings.Contains(body, "flows are those of a pod") {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
	if status, _, _ := get(t, browser, below+"ask?about=bgp&node=n1"); status != http.StatusNotFound {
		t.Errorf("n1, which speaks no BGP, is asked: %d", status)
	}
}

func TestAsksSomeAtATime(t *testing.T) {
	source := &fixed{overview: &Overview{}, says: map[string]string{}}
	for i := range 50 {
		name := fmt.Sprint("n", i)
		source.overview.Nodes = append(source.overview.Nodes, Node{Name: name, Answers: true})
		source.says[name+" pods"] = `{}`
	}
	server := New(source)
	server.Parallel = 4
	server.takeOverview(t.Context())
	all := server.gather(t.Context(), server.answering(Pods, ""), Pods, "", condensePods, false)
	if len(all.Nodes) != 50 || source.most.Load() > 4 {
		t.Errorf("%d nodes, %d at once", len(all.Nodes), source.most.Load())
	}
}

func TestHeadline(t *testing.T) {
	well := Node{Name: "n1", State: "ready", Answers: true}
	bad := func(name, state string, problems int) Node {
		return Node{Name: name, State: state, Wrong: true, Answers: state == "ready" || state == "not ready", Problems: problems}
	}
	for _, c := range []struct {
		o               Overview
		state, headline string
	}{
		{Overview{}, Unknown, "No node is seen"},
		{Overview{Nodes: []Node{well}}, Fine, "1 node, all is well"},
		{Overview{Nodes: []Node{well, well}}, Fine, "2 nodes, all well"},
		{Overview{Nodes: []Node{bad("n1", "not ready", 2)}}, Wrong, "The node is not well: n1 (not ready)"},
		{Overview{Nodes: []Node{bad("n1", "no answer", 0), bad("n2", "ready", 2), bad("n3", "ready", 0), bad("n4", "ready", 0), well}}, Wrong, "4 of 5 nodes are not well: n1 (no answer), n2 (2 problems), n3 (ready), …"},
		{Overview{Nodes: []Node{well, {Name: "n2", State: "not asked", Unknown: true}}}, Unknown, "1 of 2 nodes is not known: n2 (not asked)"},
		{Overview{Nodes: []Node{well, well}, Unknown: []string{"no right"}}, Unknown, "2 nodes, as far as is known all well"},
		{Overview{Nodes: []Node{well}, Findings: []Finding{{Text: "x"}}}, Wrong, "1 node, 1 problem"},
	} {
		c.o.sumUp()
		if c.o.State != c.state || c.o.Headline != c.headline {
			t.Errorf("got %s %q, want %s %q", c.o.State, c.o.Headline, c.state, c.headline)
		}
	}
}
