package policy

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Whatever becomes of a cluster, the rules decide as the objects' descriptions say, in
// the kernel's words and in [plan.judge]'s; they are those of a fresh start; and who has
// followed the changes of the sets has the sets.
func TestRandomClusters(t *testing.T) {
	const histories, steps, questions = 60, 60, 40
	refused, passed, strange := 0, 0, 0
	for seed := range uint64(histories) {
		d := newDice(seed)
		c, w := newCluster(), newWorld()
		for _, name := range []string{"x", "y", "z"} {
			n := d.namespace(name)
			c.namespaces[name] = n
			w.apply(Batch{Namespaces: map[string]*Namespace{name: FromNamespace(n)}})
		}
		var mirror map[string]map[string]bool
		for step := range steps {
			w.apply(c.step(d))
			w.attach(c.attached())
			p := w.replan()
			table := p.table(w, newEnded().elements(), step%2 == 0)
			mirror = keep(mirror, table, w.takeChanges())
			if got := contentOf(table); !maps.EqualFunc(mirror, got, maps.Equal) {
				t.Fatalf("seed %d, step %d: who has followed the changes has %v, not %v", seed, step, mirror, got)
			}
			fresh := newWorld()
			fresh.apply(c.everything())
			fresh.attach(c.attached())
			again := fresh.replan().table(fresh, newEnded().elements(), step%2 == 0)
			if a, b := sorted(table), sorted(again); a != b {
				t.Fatalf("seed %d, step %d: after its history\n%s\nfrom the start\n%s", seed, step, a, b)
			}
			tr := newTracer(t, table)
			for _, q := range c.packets(d, questions) {
				want, got := c.allows(q), tr.passes(q)
				if want {
					passed++
				} else {
					refused++
				}
				if judged := !p.refuses(w, q.source.Addr(), q.destination.Addr(), q.protocol, q.destination.Port()); got != want || judged != want {
					t.Fatalf("seed %d, step %d: %s: the model says %v, the rules %v, judge %v\n%s", seed, step, q, want, got, judged, table)
				}
				// Somebody new has an address of the connection: to the rules that is as if
				// its pod were not there.
				for _, a := range []netip.Addr{q.source.Addr(), q.destination.Addr()} {
					tr.evicted = a
					without := c.clone()
					if p := c.podAt(a); p != nil {
						delete(without.pods, Name{p.Namespace, p.Name})
					}
					want, got := without.allows(q), tr.passes(q)
					if got != want {
						t.Fatalf("seed %d, step %d: %s, and %s is evicted: the model says %v, the rules %v\n%s", seed, step, q, a, want, got, table)
					}
					if want != c.allows(q) {
						strange++
					}
				}
				tr.evicted = netip.Addr{}
			}
		}
	}
	t.Logf("%d refused, %d passed, %d otherwise where an end is evicted", refused, passed, strange)
	if all := refused + passed; refused < all/10 || passed < all/10 || strange < all/100 {
		t.Errorf("of %d only %d were refused and %d passed, %d otherwise where an end is evicted: the test does not test", all, refused, passed, strange)
	}
}

// contentOf are the keys in the sets of groups.
func contentOf(t nft.Table) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, s := range t.Sets {
		if m, is := s.Elements.(keySet); is {
			all[s.Name] = map[string]bool{}
			m.All(func(e nft.Element) bool { all[s.Name][e.Key] = true; return true })
		}
	}
	return all
}

// keep does what the keeper does: sets that are new are written whole, those that stay by
// what has changed.
func keep(have map[string]map[string]bool, t nft.Table, deltas []nft.Delta) map[string]map[string]bool {
	now := contentOf(t)
	for name := range now {
		if have[name] != nil {
			now[name] = have[name]
		}
	}
	for _, d := range deltas {
		if have[d.Set] == nil || now[d.Set] == nil {
			continue
		}
		for _, e := range d.Deleted {
			if !now[d.Set][e.Key] {
				panic("deleted what was not there: " + d.Set)
			}
			delete(now[d.Set], e.Key)
		}
		for _, e := range d.Added {
			now[d.Set][e.Key] = true
		}
	}
	return now
}

// sorted is a table's text with the elements of its sets in order.
func sorted(t nft.Table) string {
	t.Sets = slices.Clone(t.Sets)
	for i, s := range t.Sets {
		if m, is := s.Elements.(keySet); is {
			var list nft.List
			m.All(func(e nft.Element) bool { list = append(list, e); return true })
			slices.SortFunc(list, func(a, b nft.Element) int {
				if a.Key < b.Key {
					return -1
				}
				return 1
			})
			t.Sets[i].Elements = list
		}
	}
	return t.String()
}
