package closed

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// TestRest: what nobody is in goes, and comes back with the next one.
func TestRest(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		table := &Table{Lasting: true}
		rest := func(gone bool) {
			t.Helper()
			refused, err := table.Rest()
			if exists, _ := there(t); err != nil || exists || gone != (refused != nil) {
				t.Errorf("counted %v, %v; the table is there: %t", refused, err, exists)
			}
		}
		rest(false)
		for range 2 {
			if err := table.Close(addresses("10.1.0.2", "fd00::2"), true, true); err != nil {
				t.Fatal(err)
			}
			if refused, err := table.Rest(); refused != nil || err != nil {
				t.Errorf("with somebody in it: %v, %v", refused, err)
			}
			check(t, table, "10.1.0.2", "fd00::2")
			if err := table.Open(addresses("10.1.0.2", "fd00::2")...); err != nil {
				t.Fatal(err)
			}
			rest(true)
		}
	})
}

// TestRestWhileSomebodyIsClosed: who is closed while the table is about to go stays so.
func TestRestWhileSomebodyIsClosed(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		other := &Table{}
		if err := other.Close(addresses("10.1.0.2"), true, true); err != nil {
			t.Fatal(err)
		}
		if err := other.Open(addresses("10.1.0.2")...); err != nil {
			t.Fatal(err)
		}
		late := false
		table := &Table{Step: func(operation string) error {
			if late {
				t.Errorf("a second %q", operation)
			}
			late = true
			return other.Close(addresses("10.1.0.3"), true, false)
		}}
		if refused, err := table.Rest(); refused != nil || err != nil {
			t.Errorf("%v, %v", refused, err)
		}
		check(t, table, "10.1.0.3")
	})
}

// TestRestAmongMany: the same, of many who come and go.
func TestRestAmongMany(t *testing.T) {
	node := netlab.Start(t).Node("node")
	stop := make(chan struct{})
	var resting, comers sync.WaitGroup
	resting.Go(func() {
		node.Test(t, func() {
			table := &Table{Lasting: true}
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := table.Rest(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	})
	for i := range 4 {
		comers.Go(func() {
			node.Test(t, func() {
				table := &Table{Lasting: true}
				a := netip.AddrFrom4([4]byte{10, 1, 1, byte(i)})
				for range 30 {
					if err := table.Close([]netip.Addr{a}, true, true); err != nil {
						t.Error(err)
						return
					}
					if all, err := table.Addresses(); err != nil || !slices.Contains(all, a) {
						t.Errorf("%s is not closed, but %v, %v", a, all, err)
					}
					if err := table.Open(a); err != nil {
						t.Error(err)
						return
					}
				}
			})
		})
	}
	comers.Wait()
	close(stop)
	resting.Wait()
}
