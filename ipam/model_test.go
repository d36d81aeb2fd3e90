package ipam

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// model is what a store should do, said simply: every set has a list of the
// addresses that were never used, in order, and a list of those that were
// released, in order.
type model struct {
	pool  Pool
	never [][]netip.Addr
	freed [][]netip.Addr
	held  map[string][]netip.Addr
}

func newModel(pool Pool) *model {
	m := &model{pool: pool, held: map[string][]netip.Addr{}}
	for _, set := range pool {
		var all []netip.Addr
		cursor := netip.Addr{}
		for range set.size() {
			next, r := set.after(cursor)
			if next != r.Gateway {
				all = append(all, next)
			}
			cursor = next
		}
		m.never = append(m.never, all)
		m.freed = append(m.freed, nil)
	}
	return m
}

func (m *model) add(id string, requested []netip.Addr) string {
	if m.held[id] != nil {
		return "duplicate"
	}
	var got []netip.Addr
	for i, set := range m.pool {
		at := slices.IndexFunc(requested, set.serves)
		switch {
		case at >= 0 && (slices.Contains(m.never[i], requested[at]) || slices.Contains(m.freed[i], requested[at])):
			got = append(got, requested[at])
		case at >= 0:
			return "taken"
		case len(m.never[i]) > 0:
			got = append(got, m.never[i][0])
		case len(m.freed[i]) > 0:
			got = append(got, m.freed[i][0])
		default:
			return "exhausted"
		}
	}
	for i, a := range got {
		is := func(o netip.Addr) bool { return o == a }
		m.never[i] = slices.DeleteFunc(m.never[i], is)
		m.freed[i] = slices.DeleteFunc(m.freed[i], is)
	}
	m.held[id] = got
	return texts(got)
}

func (m *model) del(id string) string {
	for i, a := range m.held[id] {
		m.freed[i] = append(m.freed[i], a)
	}
	defer delete(m.held, id)
	return texts(m.held[id])
}

// word reduces an error to its kind.
func word(addrs []netip.Addr, err error) string {
	switch {
	case err == nil:
		return texts(addrs)
	case errors.As(err, new(*DuplicateError)):
		return "duplicate"
	case errors.As(err, new(*TakenError)):
		return "taken"
	case errors.As(err, new(*ExhaustedError)):
		return "exhausted"
	}
	return err.Error()
}

func allocated(all []Allocation) (addrs []netip.Addr) {
	for _, a := range all {
		addrs = append(addrs, a.Address.Addr())
	}
	return addrs
}

// TestModel compares the store with the model, address by address, over
// thousands of random steps. Nobody else touches the directory.
func TestModel(t *testing.T) {
	for _, config := range []string{
		`[[{"subnet": "10.0.0.0/28"}]]`,
		`[[{"subnet": "10.0.0.0/29"}, {"subnet": "10.0.1.0/30"}, {"subnet": "10.0.2.0/31"}], [{"subnet": "fd00::/124"}]]`,
		`[[{"subnet": "10.0.0.0/27", "rangeStart": "10.0.0.7", "rangeEnd": "10.0.0.20", "gateway": "10.0.0.9"}], [{"subnet": "fd00::/127"}, {"subnet": "fd00::8/125"}]]`,
	} {
		t.Run(config, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			l := newLab(t)
			m := newModel(poolOf(t, config))
			s := l.open()
			id := func() string { return fmt.Sprint("c", random.IntN(18)) }
			for step := range 1500 {
				var what, got, want string
				switch random.IntN(10) {
				case 0, 1, 2, 3:
					r := Request{Owner: Owner{id(), "eth0"}, Pool: m.pool}
					what = fmt.Sprint("add ", r.Owner)
					want = m.add(r.Owner.ContainerID, nil)
					all, err := s.Allocate(t.Context(), r)
					got = word(allocated(all), err)
				case 4:
					r := Request{Owner: Owner{id(), "eth0"}, Pool: m.pool}
					for i, set := range m.pool {
						if random.IntN(2) == 0 {
							continue
						}
						all := slices.Concat(newModel(m.pool).never[i])
						if a := all[random.IntN(len(all))]; set.serves(a) {
							r.Requested = append(r.Requested, a)
						}
					}
					what = fmt.Sprint("add ", r.Owner, r.Requested)
					want = m.add(r.Owner.ContainerID, r.Requested)
					all, err := s.Allocate(t.Context(), r)
					got = word(allocated(all), err)
				case 5, 6, 7:
					o := Owner{id(), "eth0"}
					what, want = fmt.Sprint("del ", o), m.del(o.ContainerID)
					got = word(s.Release(t.Context(), o))
				case 8:
					o := Owner{id(), "eth0"}
					what, want = fmt.Sprint("lookup ", o), texts(m.held[o.ContainerID])
					got = word(s.Lookup(t.Context(), o))
				case 9:
					what, want = "status", "<nil>"
					for i := range m.pool {
						if len(m.never[i])+len(m.freed[i]) == 0 {
							want = "exhausted"
							break
						}
					}
					if got = "<nil>"; s.HasFree(t.Context(), m.pool) != nil {
						got = "exhausted"
					}
				}
				if got != want {
					t.Fatalf("seed %d, step %d: %s:\ngot  %q\nwant %q", seed, step, what, got, want)
				}
				if step%50 == 0 {
					l.intact()
					for i, set := range m.pool {
						u, err := s.Usage(t.Context(), set)
						if err != nil || u.Used != uint64(len(m.held)) || u.Cooling != uint64(len(m.freed[i])) || u.Total != set.allocatable() {
							t.Errorf("usage %+v, %v, want %d used and %d cooling", u, err, len(m.held), len(m.freed[i]))
						}
					}
				}
				if t.Failed() {
					t.Fatalf("seed %d, step %d: %s", seed, step, what)
				}
			}
		})
	}
}

// TestDisturbed is random steps among which host-local works in the same
// directory, processes die, records are torn, and the machine restarts. Which
// address comes next is not foreseen then, but who holds what is.
func TestDisturbed(t *testing.T) {
	for worker := range 4 {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			l := newLab(t)
			pool := poolOf(t, `[[{"subnet": "10.0.0.0/28"}, {"subnet": "10.0.1.0/30"}], [{"subnet": "fd00::/122"}]]`)
			all := newModel(pool).never
			held := map[string]string{} // address → "id ifname"
			id := func() string { return fmt.Sprint("c", random.IntN(20)) }
			owns := func(o string) (addrs []string) {
				for a, holder := range held {
					if holder == o {
						addrs = append(addrs, a)
					}
				}
				slices.Sort(addrs)
				return addrs
			}
			free := func(set int) string {
				for range 20 {
					a := all[set][random.IntN(len(all[set]))].String()
					if _, err := os.Stat(l.path(a)); err != nil {
						return a
					}
				}
				return ""
			}
			s := l.open()
			for step := range 1200 {
				c := id()
				o := c + " eth0"
				what := ""
				switch random.IntN(16) {
				case 0, 1, 2, 3, 4:
					what = "add " + c
					got, err := s.Allocate(t.Context(), Request{Owner: Owner{c, "eth0"}, Pool: pool})
					mine := owns(o)
					switch w := word(nil, err); {
					case err == nil && len(got) == 2 && len(mine) == 0:
						for _, a := range allocated(got) {
							if held[a.String()] != "" {
								t.Errorf("%s is of %s", a, held[a.String()])
							}
							held[a.String()] = o
						}
					case w == "duplicate" && (len(mine) > 0 || len(owns(c)) > 0):
					case w == "exhausted" && (!slices.ContainsFunc(all[0], func(a netip.Addr) bool { return held[a.String()] == "" })):
					default:
						t.Errorf("got %v, %v; it has %v", got, err, mine)
					}
				case 5, 6, 7, 8:
					what = "del " + c
					want := owns(o)
					if len(want) == 0 {
						want = owns(c)
					}
					got, err := s.Release(t.Context(), Owner{c, "eth0"})
					if g := strings.Fields(texts(got)); err != nil || !slices.Equal(slices.Sorted(slices.Values(g)), want) {
						t.Errorf("released %v, %v, want %v", got, err, want)
					}
					for _, a := range want {
						delete(held, a)
					}
				case 9:
					what = "lookup " + c
					want := owns(o)
					if len(want) == 0 {
						want = owns(c)
					}
					got, err := s.Lookup(t.Context(), Owner{c, "eth0"})
					if g := strings.Fields(texts(got)); err != nil || !slices.Equal(slices.Sorted(slices.Values(g)), want) {
						t.Errorf("looked up %v, %v, want %v", got, err, want)
					}
				case 10:
					set := random.IntN(2)
					if a := free(set); a != "" {
						what = "host-local adds " + c + " " + a
						l.hostLocalAdd(c, "eth0", a, set)
						held[a] = o
					}
				case 11:
					what = "host-local deletes " + c
					want := owns(o)
					if len(want) == 0 {
						want = owns(c)
					}
					if n := l.hostLocalDel(c, "eth0"); n != len(want) {
						t.Errorf("removed %d, want %v", n, want)
					}
					for _, a := range want {
						delete(held, a)
					}
				case 12:
					what = "a record is torn"
					if a := free(0); a != "" {
						l.write(a, "")
					}
				case 13:
					what = "legacy record of " + c
					if a := free(1); a != "" && random.IntN(4) == 0 {
						l.write(a, c)
						held[a] = c
					}
				case 14:
					what = "collect"
					gone := id()
					got, err := s.Collect(t.Context(), func(r Reservation) bool { return r.Owner.ContainerID == gone })
					n := 0
					for _, r := range got {
						n += len(r.Addresses)
					}
					if want := slices.Concat(owns(gone+" eth0"), owns(gone)); err != nil || n != len(want) {
						t.Errorf("collected %v, %v, want %v", got, err, want)
					}
					maps.DeleteFunc(held, func(_, holder string) bool { return strings.Fields(holder)[0] == gone })
				case 15:
					switch random.IntN(3) {
					case 0:
						what = "crash in add " + c
						if len(owns(o)) > 0 || len(owns(c)) > 0 {
							break
						}
						f := &faults{kind: []string{"once", "dead", "panic"}[random.IntN(3)], n: random.IntN(25)}
						l.Step = f.step
						crashing := l.open()
						_ = f.run(func() error {
							_, err := crashing.Allocate(t.Context(), Request{Owner: Owner{c, "eth0"}, Pool: pool})
							return err
						})
						l.Step = nil
						if _, err := s.Release(t.Context(), Owner{c, "eth0"}); err != nil {
							t.Error(err)
						}
					case 1:
						what = "crash in del " + c
						f := &faults{kind: []string{"once", "dead", "panic"}[random.IntN(3)], n: random.IntN(12)}
						l.Step = f.step
						crashing := l.open()
						exact := len(owns(o)) > 0
						_ = f.run(func() error {
							_, err := crashing.Release(t.Context(), Owner{c, "eth0"})
							return err
						})
						l.Step = nil
						if exact {
							for _, a := range owns(o) {
								delete(held, a)
							}
							// The second one must not go on to what is left
							// of the first one's legacy.
							if now := l.records(); slices.ContainsFunc(slices.Collect(maps.Values(now)), func(h string) bool { return h == o }) {
								if _, err := s.Release(t.Context(), Owner{c, "eth0"}); err != nil {
									t.Error(err)
								}
							}
						} else {
							if _, err := s.Release(t.Context(), Owner{c, "eth0"}); err != nil {
								t.Error(err)
							}
							for _, a := range owns(c) {
								delete(held, a)
							}
						}
					case 2:
						if random.IntN(10) > 0 {
							break
						}
						what = "restart"
						l.BootID = fmt.Sprint("boot ", step)
						s = l.open()
						clear(held)
						if _, err := s.Reservations(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}
				now := l.records()
				maps.DeleteFunc(now, func(_, o string) bool { return o == "" }) // torn
				if !maps.Equal(now, held) {
					t.Errorf("records %v,\nwant %v", now, held)
				}
				if t.Failed() {
					t.Fatalf("seed %d, step %d: %s", seed, step, what)
				}
			}
			if _, err := s.Collect(t.Context(), func(r Reservation) bool { return true }); err != nil {
				t.Error(err)
			}
			l.intact()
			l.fill(pool, 14)
			if _, err := os.Stat(l.path("lock")); err != nil {
				t.Error(err)
			}
		})
	}
}
