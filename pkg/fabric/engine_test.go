package fabric

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
)

// nodeOf keeps lines short.
type nodeOf = node.Node

// memory stands in for the kernel: it keeps what is there by its place, and
// refuses and takes along what the kernel does.
type memory struct {
	held    map[string]kernel.Object
	refuse  map[string]error // by place
	applied int              // changes
	broken  error            // of List
}

func newMemory() *memory {
	return &memory{held: map[string]kernel.Object{}, refuse: map[string]error{}}
}

func (m *memory) List() ([]kernel.Object, error) {
	var all []kernel.Object
	for _, o := range m.held {
		all = append(all, o)
	}
	return all, m.broken
}

func (m *memory) Apply(changes []kernel.Change) []error {
	results := make([]error, len(changes))
	for i, c := range changes {
		results[i] = m.apply(c)
	}
	m.applied += len(changes)
	return results
}

func (m *memory) apply(c kernel.Change) error {
	place := kernel.Place(c.Object)
	if err := m.refuse[place]; err != nil && c.Verb != kernel.Delete {
		return fmt.Errorf("%s: %w", c, err)
	}
	_, link := c.Object.Dependence()
	if link == tunnelName && c.Verb != kernel.Delete && m.held["link "+tunnelName] == nil {
		return fmt.Errorf("%s: no such device", c)
	}
	before, there := m.held[place]
	if c.Verb == kernel.Delete {
		delete(m.held, place)
		m.takeAlong(c.Object)
		return nil
	}
	if there && c.Verb == kernel.Add {
		return fmt.Errorf("%s: %w", c, kernel.ErrExists)
	}
	if old, is := before.(kernel.Tunnel); is && old.From != c.Object.(kernel.Tunnel).From {
		m.takeAlong(old) // it is made anew
	}
	m.held[place] = c.Object
	return nil
}

// takeAlong removes what ends with an object.
func (m *memory) takeAlong(o kernel.Object) {
	if t, is := o.(kernel.Tunnel); is {
		for place, other := range m.held {
			if _, link := other.Dependence(); link == t.Name {
				delete(m.held, place)
			}
		}
	}
}

func (m *memory) text() string {
	all, _ := m.List()
	return texts(all)
}

func TestTenThousandTransitions(t *testing.T) {
	r := rand.New(rand.NewPCG(70, 2))
	underlays := []kernel.Underlay{
		underlayOf([]string{"172.30.0.1/24", "fd00:30::1/64"}, via("0.0.0.0/0", "172.30.0.254"), via("::/0", "fd00:30::fe")),
		underlayOf([]string{"172.30.0.1/16", "fd00:30::1/64"}),
		underlayOf([]string{"172.30.0.1/24"}, via("0.0.0.0/0", "172.30.0.254"), via("10.204.0.0/16", "172.30.0.9")),
	}
	m := newMemory()
	e := NewEngine(m)
	planners := map[Mode]*Planner{}
	for _, mode := range modes {
		planners[mode] = &Planner{Config: answering(mode)}
	}
	self, underlay, mode := randomSelf(r), underlays[0], Auto
	nodes := randomNodes(r, self)
	repairs := 0
	for step := range 10_000 {
		// Mostly one thing changes, as in life.
		switch r.IntN(20) {
		case 0:
			underlay = underlays[r.IntN(len(underlays))]
		case 1:
			mode = modes[r.IntN(len(modes))]
		case 2:
			self = randomSelf(r)
			nodes[0] = self
		case 3:
			nodes = randomNodes(r, self)
		default:
			// One node becomes what it might be at another time.
			for _, other := range randomNodes(r, self) {
				for i := range nodes {
					if i > 0 && nodes[i].Name == other.Name {
						nodes = append([]nodeOf{}, nodes...)
						nodes[i] = other
					}
				}
				if r.IntN(2) == 0 {
					break
				}
			}
		}
		plan := planners[mode].Plan(self, nodes, underlay)
		scratch := (&Planner{Config: answering(mode)}).Plan(self, nodes, underlay)
		if plan.String() != scratch.String() {
			t.Fatalf("step %d: the planner's memory makes a difference:\n%s\ninstead of\n%s", step, plan, scratch)
		}
		if result, err := e.Sync(plan); err != nil || result.Failed > 0 {
			t.Fatalf("step %d: %v %v", step, err, e.Failures())
		}
		want := entryTexts(scratch.Entries())
		if got := m.text(); got != want {
			t.Fatalf("step %d (%s): there is\n%s\ninstead of\n%s", step, mode, got, want)
		}
		if present, desired := e.Present(); present != desired || desired != len(m.held) {
			t.Fatalf("step %d: the engine believes that %d of %d are there, of %d", step, present, desired, len(m.held))
		}
		// Now and then somebody breaks something.
		if r.IntN(4) > 0 || len(m.held) == 0 {
			continue
		}
		damage := breakSomething(r, m)
		noticed := false
		for _, event := range damage {
			noticed = e.Observe(event) || noticed
		}
		if !noticed {
			t.Fatalf("step %d: %v went unnoticed", step, damage)
		}
		result, err := e.Verify()
		if err != nil || len(result.Changes) == 0 {
			t.Fatalf("step %d: %v is not mended: %v %v", step, damage, result, err)
		}
		repairs += len(result.Changes)
		if got := m.text(); got != want {
			t.Fatalf("step %d: after the repair of %v there is\n%s\ninstead of\n%s", step, damage, got, want)
		}
	}
	if repairs < 1000 {
		t.Errorf("only %d repairs", repairs)
	}
}

// breakSomething deletes or changes an object behind the engine's back and
// returns what the kernel would tell of it.
func breakSomething(r *rand.Rand, m *memory) []kernel.Event {
	all, _ := m.List()
	o := all[r.IntN(len(all))]
	if route, is := o.(kernel.Route); is && r.IntN(2) == 0 {
		route.Unreachable, route.Link, route.OnLink = !route.Unreachable, "", false
		m.held[kernel.Place(route)] = route
		return []kernel.Event{{Object: route}}
	}
	if tunnel, is := o.(kernel.Tunnel); is && r.IntN(2) == 0 {
		tunnel.MTU++
		m.held[kernel.Place(tunnel)] = tunnel
		return []kernel.Event{{Object: tunnel}}
	}
	delete(m.held, kernel.Place(o))
	m.takeAlong(o)
	return []kernel.Event{{Object: o, Gone: true}}
}

func TestOneRefusalDoesNotKeepOthersFromBeingMade(t *testing.T) {
	m := newMemory()
	e := NewEngine(m)
	underlay := underlayOf([]string{"172.30.0.1/24", "fd00:30::1/64"})
	plan := (&Planner{Config: config(Direct)}).Plan(testNodes[0], testNodes[:2], underlay)
	refused := "route 10.244.2.0/24 table 254 metric 0"
	m.refuse[refused] = kernel.ErrExists
	result, err := e.Sync(plan)
	if err != nil || result.Failed != 1 || len(result.Changes) != len(plan.Entries())-1 {
		t.Fatalf("%+v %v", result, err)
	}
	if f := e.Failures(); len(f) != 1 || !errors.Is(f[0].Err, kernel.ErrExists) || !strings.Contains(f[0].Err.Error(), "10.244.2.0/24") {
		t.Errorf("failures: %v", f)
	}
	if present, desired := e.PresentRoutes(); present != 1 || desired != 2 {
		t.Errorf("%d of %d routes", present, desired)
	}
	// It stays known while something else changes, and is over when it works.
	more := (&Planner{Config: config(Direct)}).Plan(testNodes[0], []nodeOf{testNodes[0], testNodes[1], testNode(6, "172.30.0.6")}, underlay)
	if result, err := e.Sync(more); err != nil || result.Failed != 1 {
		t.Errorf("%+v %v", result, err)
	}
	delete(m.refuse, refused)
	if result, err := e.Verify(); err != nil || result.Failed != 0 || len(result.Changes) != 1 {
		t.Errorf("%+v %v", result, err)
	}
	if got, want := m.text(), entryTexts(more.Entries()); got != want {
		t.Errorf("there is\n%s\ninstead of\n%s", got, want)
	}
}

func TestWhatCannotBeReadIsNotTakenForAbsent(t *testing.T) {
	m := newMemory()
	e := NewEngine(m)
	plan := (&Planner{Config: config(Direct)}).Plan(testNodes[0], testNodes[:2], underlayOf([]string{"172.30.0.1/24", "fd00:30::1/64"}))
	m.broken = errors.New("interrupted")
	if _, err := e.Sync(plan); !errors.Is(err, m.broken) || m.applied > 0 {
		t.Errorf("%v, %d changes", err, m.applied)
	}
	m.broken = nil
	if _, err := e.Verify(); err != nil || m.text() != entryTexts(plan.Entries()) {
		t.Errorf("%v\n%s", err, m.text())
	}
	m.broken, m.applied = errors.New("interrupted"), 0
	if _, err := e.Verify(); !errors.Is(err, m.broken) || m.applied > 0 {
		t.Errorf("%v, %d changes", err, m.applied)
	}
}

func TestARouteThatLeadsElsewhereIsReplacedInOneStep(t *testing.T) {
	a := entry(kernel.Route{Destination: testNode(2).PodCIDRs[0], Link: "eth0"})
	b := entry(kernel.Route{Destination: testNode(2).PodCIDRs[0], Link: tunnelName, OnLink: true})
	changes := Diff(map[string]Entry{a.Place: a}, map[string]Entry{b.Place: b})
	if len(changes) != 1 || changes[0].Verb != kernel.Put || changes[0].Object != b.Object {
		t.Errorf("%v", changes)
	}
}

func TestNewThingsComeInTheirOrderAndOldOnesGoBackwards(t *testing.T) {
	plan := (&Planner{Config: config(VXLAN)}).Plan(testNodes[0], testNodes[:2], underlayOf([]string{"172.30.0.1/24", "fd00:30::1/64"}))
	kinds := func(changes []kernel.Change) (all []string) {
		for _, c := range changes {
			kind, _, _ := strings.Cut(kernel.Place(c.Object), " ")
			if len(all) == 0 || all[len(all)-1] != kind {
				all = append(all, kind)
			}
		}
		return all
	}
	if got := fmt.Sprint(kinds(Diff(nil, plan.Entries()))); got != "[link address neighbour forward route rule route]" {
		t.Errorf("making: %s", got)
	}
	if got := fmt.Sprint(kinds(Diff(plan.Entries(), nil))); got != "[route rule route forward neighbour address link]" {
		t.Errorf("removing: %s", got)
	}
}

// What could not be made because the tunnel was not there is made in the step that
// makes the tunnel.
func TestTunnelThatComesLateBringsTheRest(t *testing.T) {
	m := newMemory()
	e := NewEngine(m)
	p := &Planner{Config: config(VXLAN)}
	m.refuse["link "+tunnelName] = kernel.ErrExists
	if result, err := e.Sync(p.Plan(testNodes[0], testNodes[:3], underlayOf([]string{"172.30.0.1/24", "fd00:30::1/64"}))); err != nil || result.Failed < 5 {
		t.Fatalf("%+v %v", result, err)
	}
	delete(m.refuse, "link "+tunnelName)
	// The peers are the same values as before: only what is shared is looked at.
	plan := p.Plan(testNodes[0], testNodes[:3], underlayOf([]string{"172.30.0.1/24", "fd00:30::1/64"}))
	if result, err := e.Sync(plan); err != nil || result.Failed > 0 || len(e.Failures()) > 0 {
		t.Errorf("%+v %v", result, err)
	}
	if present, desired := e.Present(); present != desired || desired < 10 {
		t.Errorf("%d of %d are there", present, desired)
	}
}
