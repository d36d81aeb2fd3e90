package rules

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// exempted lists a family's exempt set.
func exempted(t *testing.T, f nft.Family) (all nft.Ranges) {
	t.Helper()
	run(t, func(c *nft.Conn) error {
		return c.Elements(id(f), exemptSet(f), func(e nft.Element) { all = append(all, nft.RangeIn(e)) })
	})
	return all
}

func TestExemptMore(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		var steps int
		r := &Rules{Step: func(string) error { steps++; return nil }}
		more := prefixes("10.0.0.0/8", "10.244.0.0/16", "192.168.0.0/16", "fd00::/16")
		// Nothing is made where nothing is.
		if _, changed, err := r.ExemptMore(more); changed || err != nil || steps != 0 || len(tables(t)) != 0 {
			t.Errorf("no table: %t, %v, %d steps, tables %v", changed, err, steps, tables(t))
		}
		// The guard's table has no exempt set.
		if err := r.Add(Need{Addresses: addresses("fd00::2")}); err != nil {
			t.Fatal(err)
		}
		if _, changed, err := r.ExemptMore(more); changed || err != nil {
			t.Errorf("guard only: %t, %v", changed, err)
		}
		need := Need{Addresses: addresses("10.1.0.2", "fd00::2"), Masquerade: true, Exempt: prefixes("172.16.0.0/12", "fd12::/16")}
		if err := r.Add(need); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} {
			steps = 0
			if _, changed, err := r.ExemptMore(more); changed != want || err != nil || (steps > 0) != want {
				t.Errorf("%t, %v, %d steps; want %t", changed, err, steps, want)
			}
			want4 := nft.Ranges(nil).With(prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4")...)
			want6 := nft.Ranges(nil).With(prefixes("fd00::/16", "fd12::/16", "ff00::/8")...)
			if got := exempted(t, nft.IPv4); !slices.Equal(got, want4) {
				t.Errorf("IPv4: %v, want %v", got, want4)
			}
			if got := exempted(t, nft.IPv6); !slices.Equal(got, want6) {
				t.Errorf("IPv6: %v, want %v", got, want6)
			}
		}
		// The next attachment's ADD finds all that it wants, and keeps the rest.
		if err := r.Add(need); err != nil {
			t.Fatal(err)
		}
		if _, changed, err := r.ExemptMore(more); changed || err != nil {
			t.Errorf("after another ADD: %t, %v", changed, err)
		}
		// One family's trouble does not keep the other from being served.
		broken := errors.New("no")
		r.Step = func(string) error { return broken }
		if _, changed, err := r.ExemptMore(prefixes("198.51.100.0/24")); changed || !errors.Is(err, broken) {
			t.Errorf("%t, %v; want the step's error", changed, err)
		}
	})
}

// An ADD of another network between question and answer is not undone.
func TestExemptMoreBesideAnADD(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		add := func(exempt string) {
			t.Helper()
			if err := (&Rules{}).Add(Need{Addresses: addresses("10.1.0.2"), Masquerade: true, Exempt: prefixes(exempt)}); err != nil {
				t.Fatal(err)
			}
		}
		add("10.0.0.0/16")
		others := []string{"198.51.100.0/24", "10.0.0.0/12"}
		r := &Rules{Step: func(string) error {
			if len(others) > 0 {
				add(others[0])
				others = others[1:]
			}
			return nil
		}}
		// The second network takes the place of the one that is to be widened.
		for range 2 {
			if _, _, err := r.ExemptMore(prefixes("10.0.0.0/8", "192.168.0.0/16")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.ExemptMore(prefixes("11.0.0.0/8")); err != nil {
				t.Fatal(err)
			}
		}
		want := nft.Ranges(nil).With(prefixes("10.0.0.0/7", "192.168.0.0/16", "198.51.100.0/24", "224.0.0.0/4")...)
		if got := exempted(t, nft.IPv4); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// Attachments that come at once join what is there, each with networks of its
// own, and none loses what another brought.
func TestJoinsAtOnce(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		first := Need{Addresses: addresses("10.1.0.1", "fd00::1"), Masquerade: true}
		if joined, err := (&Rules{}).Join(first); joined || err != nil {
			t.Errorf("joined what is not there: %t, %v", joined, err)
		}
		if err := (&Rules{}).Add(first); err != nil {
			t.Fatal(err)
		}
		const pods = 16
		var wg sync.WaitGroup
		all := Need{Masquerade: true}
		for i := range pods {
			need := Need{
				Addresses:  addresses(fmt.Sprintf("10.1.1.%d", i), fmt.Sprintf("fd00::1:%d", i)),
				Exempt:     prefixes(fmt.Sprintf("172.%d.0.0/16", 16+2*i), fmt.Sprintf("fd%d::/16", 10+2*i)),
				Masquerade: true,
			}
			all.Addresses = append(all.Addresses, need.Addresses...)
			all.Exempt = append(all.Exempt, need.Exempt...)
			wg.Go(func() {
				if err := node.Do(func() error {
					joined, err := (&Rules{}).Join(need)
					if err == nil && !joined {
						err = errors.New("something is missing")
					}
					return err
				}); err != nil {
					t.Errorf("%s: %v", need.Addresses[0], err)
				}
			})
		}
		wg.Wait()
		if err := (&Rules{}).Check(all); err != nil {
			t.Error(err)
		}
		for _, f := range families {
			if got, want := exempted(t, f), nft.Ranges(nil).With(all.exemptions(f)...); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", f, got, want)
			}
		}
	})
}
