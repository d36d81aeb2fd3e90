package policy

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	networking "k8s.io/api/networking/v1"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// A policy of 10,000 networks decides as it says: here, in the words of its rules, and in
// the kernel, which takes all of it at once; and so it does when one of the networks is
// another one. Networks that touch each other are one transaction; those that do not are
// more runs than are written at once, and no packet meets a part of them.
func TestManyCIDRs(t *testing.T) {
	for _, kind := range []struct {
		name     string
		distance int
		once     bool // one transaction
	}{{"side by side", 3, true}, {"apart", 4, false}} {
		t.Run(kind.name, func(t *testing.T) {
			blocks := blocksAt(kind.distance)
			c := newCluster()
			c.setNamespace("shop", "good")
			c.put(pod("shop", "web", "web", thisNode, 1, "web"))
			c.put(pod("shop", "near", "near", thisNode, 2, "good"))
			c.setPolicy("shop", "many", reachedBy("web", peersOf(blocks)...))
			b := c.everything()
			p := b.Policies[PolicyKey{Name: Name{"shop", "many"}}]
			if len(p.Faults) > 0 || len(p.Rules[Ingress]) != 1 || len(p.Rules[Ingress][0].Blocks) != manyBlocks {
				t.Fatalf("not understood: %d rules, %v", len(p.Rules[Ingress]), p.Faults)
			}
			r := newProving(t)
			var steps []string
			k := &nft.Keeper{Keeps: []nft.ID{tableID}, Log: silent, Step: func(name string) error { steps = append(steps, name); return nil }}
			t.Cleanup(k.Close)
			w := newWorld()
			w.apply(b)
			w.attach(c.attached())
			s := &manySite{proving: r, keeper: k, world: w}
			s.sync("the first time")
			if (len(steps) == 1) != kind.once {
				t.Errorf("there were %d transactions, in one: %t", len(steps), kind.once)
			}
			s.decide("the first time", blocks, kind.distance)

			// One network of each family is another one, with an exception of its own.
			changed := slices.Clone(blocks)
			for f := range families {
				i := slices.IndexFunc(changed, func(b networking.IPBlock) bool { return b.CIDR == networkAt(f, changedSlot(kind.distance), 0, 24) })
				changed[i] = networking.IPBlock{CIDR: networkAt(f, newSlot, 0, 25), Except: []string{networkAt(f, newSlot, 64, 26)}}
			}
			c.setPolicy("shop", "many", reachedBy("web", peersOf(changed)...))
			w.apply(Batch{Policies: c.everything().Policies})
			steps = nil
			s.sync("one is changed")
			if len(steps) != 1 {
				t.Errorf("the change was %d transactions", len(steps))
			}
			s.decide("one is changed", changed, kind.distance)
		})
	}
}

// manySite is a node with the rules for the networks.
type manySite struct {
	*proving
	keeper *nft.Keeper
	world  *world
	plan   *plan
	table  nft.Table
}

// sync writes what is wanted, and has it compared.
func (s *manySite) sync(when string) {
	s.t.Helper()
	s.plan = s.world.replan()
	want := s.plan.tables(s.world, newEnded())
	s.table = want[0]
	err := s.node.Do(func() error {
		r, compared, err := s.keeper.Sync(s.t.Context(), want, s.world.takeChanges()...)
		if err != nil {
			return err
		}
		s.t.Logf("%s: %d elements were written", when, r.Elements)
		if first := when == "the first time"; compared != first {
			s.t.Errorf("%s: it was compared: %t", when, compared)
		}
		other := &nft.Keeper{Keeps: []nft.ID{tableID}, Log: silent}
		defer other.Close()
		if r, err = other.Verify(s.t.Context(), want); err == nil && (len(r.Found) > 0 || r.Elements+r.Objects > 0) {
			s.t.Errorf("%s: the second comparison finds %q, and writes %d elements and %d objects", when, r.Found, r.Elements, r.Objects)
		}
		return err
	})
	if errors.Is(err, unix.EMSGSIZE) && !anyBuffer() {
		s.t.Skipf("%s: transactions of so many networks need root, or a larger net.core.wmem_max: %v", when, err)
	}
	s.must(err)
}

// anyBuffer reports whether a socket may have a buffer larger than net.core.wmem_max:
// flatnetd may have one.
func anyBuffer() bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<20) == nil
}

// decide asks for each address of the sample whether it reaches the pod: the objects, the
// plan, the words of the rules, the kernel with a packet, and its set.
func (s *manySite) decide(when string, blocks []networking.IPBlock, distance int) {
	s.t.Helper()
	allowed, tr := allowing(blocks), newTracer(s.t, s.table)
	var packets []packet
	passing := 0
	for i, a := range sample(distance) {
		to := netip.MustParseAddrPort([...]string{"10.0.0.1:80", "[fd00::1]:80"}[familyOf(a)])
		p := packet{netip.AddrPortFrom(a, uint16(1024+i)), to, UDP}
		packets = append(packets, p)
		want := allowed(a)
		if want {
			passing++
		}
		judged := !s.plan.refuses(s.world, a, to.Addr(), UDP, 80)
		if got := tr.passes(p); judged != want || got != want {
			s.t.Errorf("%s: %s: the networks say %t, judge %t, the rules %t", when, p, want, judged, got)
		}
	}
	if refused := len(packets) - passing; passing < len(packets)/4 || refused < len(packets)/4 {
		s.t.Errorf("%s: of %d only %d are to pass: the test does not test", when, len(packets), passing)
	}
	for i, passed := range s.passing(packets, func(i int) bool { return allowed(packets[i].source.Addr()) }) {
		if want := allowed(packets[i].source.Addr()); passed != want {
			s.t.Errorf("%s: %s: the networks say %t, the kernel %t", when, packets[i], want, passed)
		}
	}
	const every = 12
	s.node.Test(s.t, func() {
		for i := 0; i < len(packets); i += every {
			a := packets[i].source.Addr()
			output, err := exec.Command("nft", "get", "element", "inet", TableName, s.setOf(a), "{ "+a.String()+" }").CombinedOutput()
			if is := err == nil; is != allowed(a) {
				s.t.Errorf("%s: the networks say of %s %t, nft %v: %s", when, a, allowed(a), err, output)
			}
		}
	})
}

// setOf is the one set in which an address of the networks is looked up.
func (s *manySite) setOf(a netip.Addr) string {
	prefix := "cidrs" + familyOf(a).suffix() + "-"
	var names []string
	for _, one := range s.table.Sets {
		if strings.HasPrefix(one.Name, prefix) {
			names = append(names, one.Name)
		}
	}
	if len(names) != 1 {
		s.t.Fatalf("there are %v", names)
	}
	return names[0]
}
