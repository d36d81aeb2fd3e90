package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// faults makes a Step hook that lets n operations pass. What happens then
// depends on the kind of fault: one operation fails and the rest work, or all
// fail from there on, as if the process were dead, or the process panics.
type faults struct {
	kind  string
	n     int
	fired string // the operation that was hit first
}

var errInjected = errors.New("injected")

func (f *faults) step(operation string) error {
	if f.n--; f.n >= 0 {
		return nil
	}
	if f.fired == "" {
		f.fired = operation
		if f.kind == "panic" {
			panic(errInjected)
		}
		return errInjected
	}
	if f.kind == "once" {
		return nil
	}
	return errInjected
}

// run calls verb and says whether it was hit.
func (f *faults) run(verb func() error) (err error) {
	defer func() {
		if p := recover(); p != nil && p != any(errInjected) {
			panic(p)
		}
	}()
	return verb()
}

// TestFaults has every operation on the disk of every verb fail, in every
// situation, and sees what is left.
func TestFaults(t *testing.T) {
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/125"}]]`)
	full := func(l *lab) {
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			l.add(pool, id)
		}
	}
	allocate := func(requested ...string) func(s *Store) error {
		r := Request{Owner: Owner{"victim", "eth0"}, Pool: pool}
		for _, text := range requested {
			r.Requested = append(r.Requested, netip.MustParseAddr(text))
		}
		return func(s *Store) error { _, err := s.Allocate(t.Context(), r); return err }
	}
	release := func(s *Store) error { _, err := s.Release(t.Context(), Owner{"victim", "eth0"}); return err }
	for _, scene := range []struct {
		name  string
		setup func(l *lab)
		verb  func(s *Store) error
	}{
		{"allocate in an empty directory", func(*lab) {}, allocate()},
		{"allocate fresh addresses", func(l *lab) { l.add(pool, "a"); l.add(pool, "b"); l.del("a") }, allocate()},
		{"allocate released addresses", func(l *lab) { full(l); l.del("a"); l.del("c") }, allocate()},
		{"allocate requested addresses", func(l *lab) { l.add(pool, "a"); l.add(pool, "b"); l.del("a") }, allocate("10.0.0.5", "fd00::2")},
		{"allocate when full", full, allocate()},
		{"allocate and collect", full, func(s *Store) error {
			_, err := s.Allocate(t.Context(), Request{Owner: Owner{"victim", "eth0"}, Pool: pool,
				Gone: func(r Reservation) bool { return r.Owner.ContainerID == "b" }})
			return err
		}},
		{"allocate in host-local's directory", func(l *lab) {
			l.hostLocalAdd("a", "eth0", "10.0.0.2", 0)
			l.hostLocalAdd("a", "eth0", "fd00::2", 1)
			l.write("10.0.0.3", "")
		}, allocate()},
		{"allocate after host-local was there", func(l *lab) {
			full(l)
			l.hostLocalDel("a", "eth0")
			l.hostLocalDel("b", "eth0")
			l.hostLocalAdd("f", "eth0", "10.0.0.2", 0)
		}, allocate()},
		{"allocate with a damaged index", func(l *lab) {
			full(l)
			l.del("a")
			l.write(".flatnet/state", "garbage")
			l.write(".flatnet/owners/garbage", "garbage")
		}, allocate()},
		{"release", func(l *lab) { l.add(pool, "a"); l.add(pool, "victim"); l.add(pool, "b"); l.del("a") }, release},
		{"release requested addresses", func(l *lab) { l.add(pool, "a"); l.add(pool, "victim", "10.0.0.5"); l.add(pool, "b"); l.del("a") }, release},
		{"release host-local's", func(l *lab) {
			l.add(pool, "a")
			l.hostLocalAdd("victim", "eth0", "10.0.0.5", 0)
		}, release},
		{"release a legacy record", func(l *lab) { l.add(pool, "a"); l.write("10.0.0.5", "victim") }, release},
		{"collect", func(l *lab) { l.add(pool, "a"); l.add(pool, "victim"); l.add(pool, "b"); l.write("10.0.0.5", "") }, func(s *Store) error {
			_, err := s.Collect(t.Context(), func(r Reservation) bool { return r.Owner.ContainerID == "victim" })
			return err
		}},
		{"look whether there is any", full, func(s *Store) error {
			err := s.HasFree(t.Context(), pool)
			if errors.As(err, new(*ExhaustedError)) {
				return nil
			}
			return err
		}},
	} {
		for kind, afters := range map[string][]string{
			"once":  {"release", "other"},
			"dead":  {"release", "collect", "other", "fault"},
			"panic": {"release", "other"},
		} {
			for _, after := range afters {
				t.Run(scene.name+", "+kind+", then "+after, func(t *testing.T) {
					t.Parallel()
					hits := 0
					for n := 0; ; n++ {
						if n > 300 {
							t.Fatal("there is no end of operations")
						}
						l := newLab(t)
						scene.setup(l)
						before := l.records()
						f := &faults{kind: kind, n: n}
						l.Step = f.step
						var s *Store
						err := f.run(func() (err error) {
							if s, err = Open(l.Options); err != nil {
								return err
							}
							return scene.verb(s)
						})
						if f.fired == "" {
							break
						}
						hits++
						l.Step = nil
						if after == "fault" {
							again := &faults{kind: kind, n: n * 7 % 23}
							l.Step = again.step
							_ = again.run(func() error {
								s, err := Open(l.Options)
								if err != nil {
									return err
								}
								return release(s)
							})
							l.Step = nil
							err = errInjected
						}
						aftermath(l, pool, before, after, kind, err, strings.HasPrefix(scene.name, "allocate"))
						if t.Failed() {
							t.Fatalf("at operation %d: %s (%v)", n, f.fired, err)
						}
					}
					if hits < 2 && scene.name != "look whether there is any" {
						t.Errorf("only %d operations were hit", hits)
					}
				})
			}
		}
	}
}

// aftermath looks at what a fault left and has it healed.
func aftermath(l *lab, pool Pool, before map[string]string, after, kind string, err error, allocating bool) {
	l.Helper()
	unharmed := func() {
		l.Helper()
		now := l.records()
		for a, o := range before {
			if id := strings.Fields(o + " torn")[0]; id != "victim" && id != "torn" && id != "b" && now[a] != o {
				l.Errorf("%s was of %q, and is of %q", a, o, now[a])
			}
		}
	}
	mine := func() (held []string) {
		for a, o := range l.records() {
			if strings.Fields(o + " torn")[0] == "victim" {
				held = append(held, a)
			}
		}
		return held
	}
	unharmed()
	if allocating && kind == "once" && after != "fault" && err != nil && len(mine()) > 0 {
		l.Errorf("a failed allocation left %v", mine())
	}
	if allocating && err == nil && kind != "panic" && len(mine()) != 2 {
		l.Errorf("a successful allocation left %v", mine())
	}
	switch after {
	case "release", "fault":
		_, err := l.open().Release(l.Context(), Owner{"victim", "eth0"})
		if err != nil {
			l.Error(err)
		}
	case "collect":
		_, err := l.open().Collect(l.Context(), func(r Reservation) bool { return r.Owner.ContainerID == "victim" })
		if err != nil {
			l.Error(err)
		}
	case "other":
		held := mine()
		got := l.add(pool, "other")
		for _, a := range held {
			if slices.Contains(strings.Fields(got), a) {
				l.Errorf("%s has two owners", a)
			}
		}
		l.intact()
		l.want("what the victim has", fmt.Sprint(len(l.del("victim")) > 0), fmt.Sprint(len(held) > 0))
		l.del("other")
	}
	if held := mine(); len(held) > 0 {
		l.Errorf("%v is left", held)
	}
	unharmed()
	l.intact()
	// And nothing is lost.
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		l.del(id)
	}
	l.want("records", fmt.Sprint(l.records()), "map[]")
	l.fill(pool, 5)
}
