package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// TestRandomHistories: whatever came, went and was damaged, the tables hold what a fresh
// start makes of the attachments that there are.
func TestRandomHistories(t *testing.T) {
	steps := 200
	if testing.Short() {
		steps = 50
	}
	lab := netlab.Start(t)
	node, fresh := lab.Node("node"), lab.Node("fresh")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 14))
	r := &Rules{}
	attached := map[int]Need{}
	all := func() (need Need) {
		need.Masquerade = len(attached) > 0
		for _, n := range attached {
			need.Addresses = append(need.Addresses, n.Addresses...)
			need.Exempt = append(need.Exempt, n.Exempt...)
		}
		return need
	}
	for step := range steps {
		var have, want []string
		node.Test(t, func() {
			switch pod := random.IntN(8); {
			case random.IntN(6) == 0:
				run(t, func(c *nft.Conn) error {
					tx := &nft.Transaction{}
					f := families[random.IntN(2)]
					switch random.IntN(3) {
					case 0:
						tx.DeleteTable(id(f))
					case 1:
						tx.FlushChain(id(f), natName)
					case 2:
						tx.FlushSet(id(f), masqueradeName)
					}
					return ignoreMissing(c.Run(tx))
				})
				if err := r.Rebuild(all()); err != nil {
					t.Fatal(err)
				}
			case attached[pod].Addresses == nil:
				n := Need{
					Addresses: addresses(fmt.Sprintf("10.1.0.%d", pod), fmt.Sprintf("fd00::%d", pod)), Masquerade: true,
					Exempt: prefixes("10.0.0.0/12", "fd00::/32"), // the same for all: they only grow
				}
				if joined, err := r.Join(n); err != nil {
					t.Fatal(err)
				} else if !joined {
					if err := r.Add(n); err != nil {
						t.Fatal(err)
					}
				}
				attached[pod] = n
			default:
				if err := remove(r, attached[pod]); err != nil {
					t.Fatal(err)
				}
				delete(attached, pod)
			}
			if len(attached) == 0 {
				if err := r.Clear(); err != nil {
					t.Fatal(err)
				}
			} else if err := r.Check(all()); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			have = contents(t)
		})
		fresh.Test(t, func() {
			if _, err := r.RemoveAll(); err != nil {
				t.Fatal(err)
			}
			if err := r.Add(all()); err != nil {
				t.Fatal(err)
			}
			want = contents(t)
		})
		if !slices.Equal(have, want) {
			t.Fatalf("step %d: there is\n%s\na fresh start makes\n%s", step, strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
	}
}

// contents are the elements of all sets that there are, and which chains are as they
// should be.
func contents(t *testing.T) (all []string) {
	t.Helper()
	there := tables(t)
	run(t, func(c *nft.Conn) error {
		for _, f := range families {
			if !slices.Contains(there, id(f).String()) {
				continue
			}
			for _, s := range []nft.Set{masqueradeSet(f), exemptSet(f)} {
				if err := c.Elements(id(f), s, func(e nft.Element) { all = append(all, fmt.Sprint(id(f), s.Name, s.Text(e))) }); err != nil {
					return err
				}
			}
			chains := []nft.Chain{masqueradeChain(f)}
			if f == nft.IPv6 {
				chains = append(chains, guardChain())
			}
			for _, ch := range chains {
				_, right, err := c.Chain(id(f), ch)
				if err != nil {
					return err
				}
				all = append(all, fmt.Sprint(id(f), ch.Name, right))
			}
		}
		return nil
	})
	slices.Sort(all)
	return all
}
