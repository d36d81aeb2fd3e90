package fabric

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func TestMain(m *testing.M) { netlab.Main(m) }

const tunnelName = "flatnet.vx"

// onNode calls f with the kernel edge of a lab's node that has two interfaces.
func onNode(t *testing.T, f func(*netlab.Node, *kernel.Fabric)) {
	t.Helper()
	lab := netlab.Start(t)
	near, far := lab.Segment("near"), lab.Segment("far")
	n := lab.Node("n1", near.Port("172.30.0.1/24", "fd00:30::1/64"), far.Port("172.31.0.1/24"))
	if err := n.AddRoute("default", "172.30.0.254"); err != nil {
		t.Fatal(err)
	}
	if err := n.AddRoute("default", "fd00:30::fe"); err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error {
		k, err := kernel.NewFabric(tunnelName)
		if err != nil {
			return err
		}
		defer k.Close()
		f(n, k)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func config(mode Mode) Config {
	return Config{Mode: mode, Tunnel: tunnelName, VNI: 70, Port: 4789, Nodes: true}
}

// answering is a config of which nodes answer probes.
func answering(mode Mode) Config {
	c := config(mode)
	c.Answer = true
	return c
}

func testNode(number int, addresses ...string) node.Node {
	n := node.Node{Name: fmt.Sprintf("n%d", number)}
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
	}
	n.PodCIDRs = []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", number)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:244:%x::/64", number)),
	}
	return n
}

var testNodes = []node.Node{
	testNode(1, "172.30.0.1", "fd00:30::1"),
	testNode(2, "172.30.0.2", "fd00:30::2"),
	testNode(3, "172.30.9.3", "fd00:39::3"),
	testNode(4, "172.31.0.4", "fd00:30::4"),
	testNode(5),
}

// addRoute adds a route that looks like the engine's, and removes it again.
func addRoute(t *testing.T, n *netlab.Node, to string) {
	t.Helper()
	link, err := n.Netlink().LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	prefix, err := netlink.ParseIPNet(to)
	if err != nil {
		t.Fatal(err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: prefix, Scope: netlink.SCOPE_LINK, Protocol: kernel.Protocol}
	if err := n.Netlink().RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	if err := n.Netlink().RouteDel(route); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsAppliedIsFoundAgain(t *testing.T) {
	for _, mode := range []Mode{Direct, VXLAN, Auto, None} {
		t.Run(string(mode), func(t *testing.T) {
			onNode(t, func(n *netlab.Node, k *kernel.Fabric) {
				underlay, err := k.Underlay()
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				monitor, err := kernel.NewMonitor(tunnelName)
				if err != nil {
					t.Fatal(err)
				}
				var events []kernel.Event
				// The kernel tells everything in order: after the last, this comes.
				const last = "203.0.113.0/24"
				told, done := make(chan struct{}, 2), make(chan error, 1)
				go func() {
					done <- monitor.Run(ctx, func(e kernel.Event) {
						if e.Object != nil && strings.Contains(e.Object.String(), last) {
							told <- struct{}{}
							return
						}
						events = append(events, e)
					})
				}()

				planner := &Planner{Config: answering(mode), Learned: learned(`
					10.244.3.0/24 172.30.0.251 172.30.0.252
					fd00:244:3::/64 fd00:30::251 fd00:30::252
					198.51.100.0/24 172.30.0.251 172.31.0.252
					2001:db8::/32 fd00:30::251 fd00:30::252
					2001:db8:1::/48 fe80::251%eth0 fe80::251%eth1
					203.0.112.0/24 172.30.0.251
				`)}
				plan := planner.Plan(testNodes[0], testNodes, underlay)
				e := NewEngine(k)
				result, err := e.Sync(plan)
				if err != nil || result.Failed > 0 {
					t.Fatalf("%v %v", err, e.Failures())
				}
				if len(result.Changes) != len(plan.Entries()) {
					t.Errorf("%d changes for %d entries", len(result.Changes), len(plan.Entries()))
				}
				again, err := e.Verify()
				if err != nil || len(again.Changes) > 0 {
					t.Errorf("there is something to mend at once: %v %v", again.Changes, err)
				}
				if present, desired := e.Present(); present != desired || desired != len(plan.Entries()) {
					t.Errorf("%d of %d present", present, desired)
				}
				addRoute(t, n, last)
				select {
				case <-told:
				case <-time.After(pace.Far()):
					t.Error("the kernel has not told of the last route")
				}
				time.Sleep(50 * time.Millisecond) // for what it tells in its own time, and must not: later would be missed
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				for _, event := range events {
					// A tunnel is told of before it is up as well.
					if tunnel, is := event.Object.(kernel.Tunnel); is && tunnel.MTU == 0 || event.Underlay {
						continue // the underlay's are the lab's own, which arrive late
					}
					if e.Observe(event) {
						t.Errorf("what the engine did is taken for somebody else's doing: %+v", event)
					}
				}
				if len(plan.Shared) > 0 && len(events) == 0 {
					t.Error("the kernel has told nothing")
				}
				after, err := k.Underlay()
				if err != nil || !after.Equal(underlay) {
					t.Errorf("the underlay has changed: %+v, %v", after, err)
				}
				if result, err := e.Sync(&Plan{}); err != nil || len(result.Changes) != len(plan.Entries()) {
					t.Errorf("removing everything: %v %v", result, err)
				}
				if objects, err := k.List(); err != nil || len(objects) > 0 {
					t.Errorf("left over: %v %v", objects, err)
				}
			})
		})
	}
}

// randomNodes are nodes as they come and go.
func randomNodes(r *rand.Rand, self node.Node) []node.Node {
	nodes := []node.Node{self}
	for number := 2; number < 9; number++ {
		if r.IntN(3) == 0 {
			continue
		}
		n := node.Node{Name: fmt.Sprintf("n%d", number)}
		if r.IntN(8) > 0 {
			n.Addresses = append(n.Addresses, netip.MustParseAddr(fmt.Sprintf("172.%d.%d.%d", 30+r.IntN(2), r.IntN(2), 10+number)))
		}
		if r.IntN(3) > 0 {
			n.Addresses = append(n.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", 30+r.IntN(2), 10+number)))
		}
		base := number + 10*r.IntN(2)
		for c := range r.IntN(3) {
			n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", 200+c, base)))
		}
		if r.IntN(3) > 0 {
			n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(fmt.Sprintf("fd00:244:%x::/64", base)))
		}
		r.Shuffle(len(n.Addresses), func(i, j int) { n.Addresses[i], n.Addresses[j] = n.Addresses[j], n.Addresses[i] })
		nodes = append(nodes, n)
	}
	return nodes
}

// randomLearned are routes as routers tell of them, and no longer do.
func randomLearned(r *rand.Rand, nodes []node.Node) Learned {
	l := Learned{}
	hops := func(ipv6 bool) (all []netip.Addr) {
		for i := range 1 + r.IntN(3) {
			switch {
			case ipv6 && r.IntN(4) == 0:
				all = append(all, netip.MustParseAddr(fmt.Sprintf("fe80::%d%%eth%d", 250+i, r.IntN(2))))
			case ipv6:
				all = append(all, netip.MustParseAddr(fmt.Sprintf("fd00:30::%d", 250+i)))
			default:
				all = append(all, netip.MustParseAddr(fmt.Sprintf("172.%d.0.%d", 30+r.IntN(2), 250+i)))
			}
		}
		return all
	}
	for _, n := range nodes {
		for _, c := range n.PodCIDRs {
			if r.IntN(2) == 0 {
				l[c] = hops(c.Addr().Is6())
			}
		}
	}
	for i := range r.IntN(4) {
		l[netip.MustParsePrefix(fmt.Sprintf("198.51.%d.0/24", 100+i))] = hops(false)
		l[netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::/48", i))] = hops(true)
	}
	return l
}

func randomSelf(r *rand.Rand) node.Node {
	self := testNode(1, "172.30.0.1", "fd00:30::1")
	switch r.IntN(8) {
	case 0:
		slices.Reverse(self.Addresses)
	case 1:
		self.PodCIDRs = nil
	case 2:
		self.PodCIDRs[0] = netip.MustParsePrefix("10.99.0.0/24")
	}
	return self
}

var modes = []Mode{Auto, Direct, VXLAN, None}

// A kernel that went through many states holds the same as one that went
// straight to the last, and the engine knows what it holds.
func TestAnyHistoryEndsInTheSameState(t *testing.T) {
	steps := 400
	if testing.Short() {
		steps = 50
	}
	onNode(t, func(n *netlab.Node, k *kernel.Fabric) {
		underlay, err := k.Underlay()
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(70, 1))
		e := NewEngine(k)
		planners := map[Mode]*Planner{}
		for _, m := range modes {
			planners[m] = &Planner{Config: answering(m)}
		}
		self := randomSelf(r)
		for step := range steps {
			if r.IntN(5) == 0 {
				self = randomSelf(r)
			}
			mode := modes[r.IntN(len(modes))]
			nodes := randomNodes(r, self)
			told := randomLearned(r, nodes)
			planners[mode].Learned = told
			plan := planners[mode].Plan(self, nodes, underlay)
			if scratch := (&Planner{Config: answering(mode), Learned: told}).Plan(self, nodes, underlay); scratch.String() != plan.String() {
				t.Fatalf("step %d: the planner's memory makes a difference:\n%s\ninstead of\n%s", step, plan, scratch)
			}
			want := plan.Entries()
			if result, err := e.Sync(plan); err != nil || result.Failed > 0 {
				t.Fatalf("step %d: %v %v", step, err, e.Failures())
			}
			objects, err := k.List()
			if err != nil {
				t.Fatal(err)
			}
			if got, wanted := texts(objects), entryTexts(want); got != wanted {
				t.Fatalf("step %d (%s): the kernel has\n%s\ninstead of\n%s", step, mode, got, wanted)
			}
		}
	})
}

func texts(objects []kernel.Object) string {
	var all []string
	for _, o := range objects {
		all = append(all, o.String())
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func entryTexts(entries map[string]Entry) string {
	var objects []kernel.Object
	for _, e := range entries {
		objects = append(objects, e.Object)
	}
	return texts(objects)
}
