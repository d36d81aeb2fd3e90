package fastpath

import (
	"slices"
	"strings"
	"testing"

	vishvananda "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netlink"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// node is a namespace with an underlay and a pod's interface.
type node struct {
	*netlab.Namespace
	t             *testing.T
	underlay, pod int
	socket        *netlink.Socket
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{Namespace: netlab.Start(t).Namespace("node"), t: t}
	must := n.must
	for name, group := range map[string]uint32{"eth0": 0, "veth1": kernel.Group} {
		a := vishvananda.NewLinkAttrs()
		a.Name, a.Group = name, group
		must(n.Netlink().LinkAdd(&vishvananda.Veth{LinkAttrs: a, PeerName: name + "p"}))
		for _, end := range []string{name, name + "p"} {
			must(n.Up(end))
		}
	}
	index := func(name string) int {
		l, err := n.Netlink().LinkByName(name)
		must(err)
		return l.Attrs().Index
	}
	n.underlay, n.pod = index("eth0"), index("veth1")
	must(n.Do(func() (err error) {
		const bytes = 64 << 10
		n.socket, err = netlink.Open(unix.NETLINK_ROUTE, bytes)
		return err
	}))
	t.Cleanup(n.socket.Close)
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// keeper returns one whose programs are in the kernel.
func (n *node) keeper(by attacher) *Keeper {
	n.t.Helper()
	k := &Keeper{attacher: by}
	n.must(n.Do(k.Load))
	n.t.Cleanup(k.Close)
	return k
}

func (n *node) attach(k *Keeper, verify bool, without ...string) (done Done) {
	n.t.Helper()
	where := Where{Underlay: []string{"eth0"}, Without: map[string]bool{}}
	for _, name := range without {
		where.Without[name] = true
	}
	n.must(n.Do(func() (err error) {
		done, err = k.Attach(where, verify)
		return err
	}))
	return done
}

// wantPrograms says at which interfaces a keeper's programs are to be, and its alone.
func (n *node) wantPrograms(k *Keeper, indices ...int) {
	n.t.Helper()
	for _, index := range []int{n.underlay, n.pod} {
		there := false
		n.must(n.Do(func() error {
			programs := k.programs.sides(index == n.pod)
			if _, by := k.attacher.(*links); by {
				there = linked(index, programs)
				return nil
			}
			there = true
			for i, side := range sidesOfFilters {
				all, err := listFilters(n.socket, index, side.parent)
				if err != nil {
					return err
				}
				all = slices.DeleteFunc(all, func(f filter) bool { return !f.own })
				there = there && len(all) == 1 && all[0].program == programs[i].id
			}
			return nil
		}))
		if want := slices.Contains(indices, index); there != want {
			n.t.Errorf("programs at interface %d: %t, want %t", index, there, want)
		}
	}
}

// other adds a filter of somebody else's, as `tc filter add` does.
func (n *node) other(link int, parent uint32, priority uint16, handle uint32, name string) *vishvananda.BpfFilter {
	n.t.Helper()
	p, err := load()
	n.must(err)
	n.t.Cleanup(func() { p.Close() })
	f := &vishvananda.BpfFilter{
		FilterAttrs: vishvananda.FilterAttrs{LinkIndex: link, Parent: parent, Handle: handle, Protocol: unix.ETH_P_ALL, Priority: priority},
		Fd:          p.LearnLink.FD(), Name: name, DirectAction: true,
	}
	n.must(n.Netlink().FilterAdd(f))
	return f
}

func (n *node) wantOther(f *vishvananda.BpfFilter) {
	n.t.Helper()
	l, err := n.Netlink().LinkByIndex(f.LinkIndex)
	n.must(err)
	all, err := n.Netlink().FilterList(l, f.Parent)
	n.must(err)
	if !slices.ContainsFunc(all, func(o vishvananda.Filter) bool {
		b, is := o.(*vishvananda.BpfFilter)
		return is && b.Name == f.Name && b.Priority == f.Priority
	}) {
		n.t.Errorf("somebody else's filter %s is gone: %v", f.Name, all)
	}
}

func (n *node) wantQueue(index int, want string) {
	n.t.Helper()
	if kind, err := kernel.IngressQueue(n.socket, index); err != nil || kind != want {
		n.t.Errorf("interface %d has qdisc %q at ingress, %v; want %q", index, kind, err, want)
	}
}

func wantSkipped(t *testing.T, done Done, name, reason string) {
	t.Helper()
	for _, s := range done.Skipped {
		if s.Interface == name && strings.Contains(s.Reason, reason) && !s.Failed {
			return
		}
	}
	t.Errorf("%s is not left alone because of %q: %+v", name, reason, done)
}

// eachAttacher calls f for both ways to attach, where the kernel has them.
func eachAttacher(t *testing.T, f func(t *testing.T, n *node, by func() attacher)) {
	for name, by := range map[string]func() attacher{
		"links": func() attacher { return &links{} }, "filters": func() attacher { return &filters{} },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "links" && !HasLinks() {
				t.Skip("the kernel has no tcx (Linux 6.6)")
			}
			f(t, newNode(t), by)
		})
	}
}

// Programs are where they are to be, are put back where somebody takes them away, and go
// from where they are not to be any more.
func TestAttach(t *testing.T) {
	eachAttacher(t, func(t *testing.T, n *node, by func() attacher) {
		k := n.keeper(by())
		if done := n.attach(k, false); len(done.Attached) != 2 || len(done.Repaired)+len(done.Skipped) > 0 {
			t.Errorf("%+v", done)
		}
		n.wantPrograms(k, n.underlay, n.pod)
		if done := n.attach(k, true); len(done.Attached) != 2 || len(done.Repaired) > 0 {
			t.Errorf("nothing has changed: %+v", done)
		}
		n.must(n.Do(func() error {
			if l, is := k.attacher.(*links); is {
				return l.made[n.pod][1].Detach()
			}
			return k.attacher.detach(n.socket, n.pod)
		}))
		n.wantPrograms(k, n.underlay)
		if done := n.attach(k, true); !slices.Equal(done.Repaired, []string{"veth1"}) {
			t.Errorf("the pod's were taken away: %+v", done)
		}
		n.wantPrograms(k, n.underlay, n.pod)
		wantSkipped(t, n.attach(k, false, "veth1"), "veth1", "switched off")
		n.wantPrograms(k, n.underlay)
		n.attach(k, false)
		n.wantPrograms(k, n.underlay, n.pod)
	})
}

// What is remembered at other interfaces leads to one that has lost the programs: who
// decides there now is asked about the next packet. Nothing else is a reason.
func TestLosingProgramsDecidesAnew(t *testing.T) {
	eachAttacher(t, func(t *testing.T, n *node, by func() attacher) {
		k := n.keeper(by())
		wantRaised := func(times uint64, why string, verify bool, without ...string) {
			t.Helper()
			before := k.raised
			n.attach(k, verify, without...)
			if raised := k.raised - before; raised != times {
				t.Errorf("%s: all was to be decided anew %d times, want %d", why, raised, times)
			}
		}
		n.must(kernel.AddClsact(n.socket, n.pod)) // for filters of others
		wantRaised(0, "programs are put there", false)
		wantRaised(0, "they are right", true)
		wantRaised(1, "the pod is to have none", false, "veth1")
		wantRaised(0, "it has none", true, "veth1")
		wantRaised(0, "it is to have some again", false)
		deciding := n.other(n.pod, vishvananda.HANDLE_MIN_EGRESS, 1, 1, "deciding")
		wantRaised(1, "somebody else decides", true)
		n.must(n.Netlink().FilterDel(deciding))
		wantRaised(0, "nobody else decides", true)
		n.wantPrograms(k, n.underlay, n.pod)
		pod, err := n.Netlink().LinkByIndex(n.pod)
		n.must(err)
		n.must(n.Netlink().LinkDel(pod))
		wantRaised(0, "the pod is gone, which the kernel tells", false)
	})
}

// The next flatnetd's programs take the places of those that the last one has left, also
// where it does not want any.
func TestNextFlatnetd(t *testing.T) {
	eachAttacher(t, func(t *testing.T, n *node, by func() attacher) {
		killed := n.keeper(by())
		n.attach(killed, false)
		killed.Close()
		k := n.keeper(by())
		n.attach(k, false, "veth1")
		n.wantPrograms(k, n.underlay)
		for _, side := range sidesOfFilters {
			if all, err := listFilters(n.socket, n.pod, side.parent); err != nil || len(all) > 0 {
				t.Errorf("the pod has filters: %+v, %v", all, err)
			}
		}
	})
}

// What others have there stays, and the reason is given where it leaves no place.
func TestFiltersOfOthers(t *testing.T) {
	n := newNode(t)
	k := n.keeper(&filters{})
	const ingress, egress = vishvananda.HANDLE_MIN_INGRESS, vishvananda.HANDLE_MIN_EGRESS
	for _, index := range []int{n.underlay, n.pod} {
		n.must(kernel.AddClsact(n.socket, index))
	}
	before, behind := n.other(n.underlay, egress, 1, 1, "before"), n.other(n.underlay, ingress, 9000, 1, "behind")
	n.attach(k, false)
	n.wantPrograms(k, n.underlay, n.pod)

	deciding := n.other(n.pod, egress, 1, 1, "deciding")
	wantSkipped(t, n.attach(k, true), "veth1", "somebody else's filter deciding decides")
	n.wantPrograms(k, n.underlay)
	n.wantOther(deciding)
	n.must(n.Netlink().FilterDel(deciding))
	n.attach(k, true)
	n.wantPrograms(k, n.underlay, n.pod)

	n.must(n.Do(func() error { return k.attacher.detach(n.socket, n.underlay) }))
	place := n.other(n.underlay, egress, filterPriority, filterHandle, "squatter")
	wantSkipped(t, n.attach(k, true), "eth0", "squatter is in the place")
	n.wantPrograms(k, n.pod)

	removed := func(leaving Leaving) (removed []string) {
		t.Helper()
		n.must(n.Do(func() (err error) {
			removed, err = (&Keeper{}).Remove(leaving)
			return err
		}))
		return removed
	}
	if all := removed(Leaving{Qdiscs: true}); !slices.Equal(all, []string{"filters of the fast path at veth1"}) {
		t.Errorf("removed %q", all)
	}
	for _, f := range []*vishvananda.BpfFilter{before, behind, place} {
		n.wantOther(f)
	}
	n.wantQueue(n.pod, "clsact") // it ends with the pod
	n.must(n.Netlink().FilterDel(place))

	// A qdisc with other filters stays, one without goes if nobody has it any more.
	k = n.keeper(&filters{})
	n.attach(k, false)
	removed(Leaving{Qdiscs: true})
	n.wantQueue(n.underlay, "clsact")
	for _, f := range []*vishvananda.BpfFilter{before, behind} {
		n.must(n.Netlink().FilterDel(f))
	}
	for _, qdiscs := range []bool{false, true} {
		k = n.keeper(&filters{})
		n.attach(k, false)
		removed(Leaving{Qdiscs: qdiscs})
		n.wantPrograms(k)
		n.wantQueue(n.underlay, map[bool]string{false: "clsact", true: ""}[qdiscs])
	}
}

// Of a qdisc that has the one side only, nothing is taken and nothing is put there.
func TestIngressOfOthers(t *testing.T) {
	n := newNode(t)
	for _, index := range []int{n.underlay, n.pod} {
		n.must(n.Netlink().QdiscAdd(&vishvananda.Ingress{QdiscAttrs: vishvananda.QdiscAttrs{LinkIndex: index, Handle: 0xffff0000, Parent: vishvananda.HANDLE_INGRESS}}))
	}
	k := n.keeper(&filters{})
	done := n.attach(k, false)
	for _, name := range []string{"eth0", "veth1"} {
		wantSkipped(t, done, name, "qdisc ingress leaves no place")
	}
	n.wantQueue(n.underlay, "ingress")
	n.wantPrograms(k)
}

// When nobody says any more that they may, programs go by nothing that they remember;
// whoever has been away has all decided anew.
func TestAlone(t *testing.T) {
	each(t, func(t *testing.T, p packet) {
		s := newStage(t)
		s.both(p)
		s.inForce(false)
		if s.forwards(p.bytes(), 0) {
			t.Error("forwarded after the deadline")
		}
		s.inForce(true)
		if !s.forwards(p.bytes(), 0) {
			t.Error("not forwarded before the deadline")
		}
	})
	k := (&node{t: t, Namespace: netlab.Start(t).Namespace("node")}).keeper(&filters{})
	k.mu.Lock()
	before := k.generation
	k.mu.Unlock()
	renew := func() {
		t.Helper()
		if err := k.Renew(); err != nil {
			t.Fatal(err)
		}
	}
	renew()
	if k.generation != before {
		t.Error("who was not away has all decided anew")
	}
	k.deadline = 0
	renew()
	if k.generation == before {
		t.Error("who was away goes by what was decided before")
	}
}
