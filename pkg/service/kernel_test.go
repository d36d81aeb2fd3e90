package service

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// labKeeper returns a keeper and a function that runs others in a namespace, which
// is where the keeper has to be called.
func labKeeper(t testing.TB) (*Keeper, *netlab.Namespace) {
	t.Helper()
	return NewKeeper(nil), netlab.Start(t).Namespace("node")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listing is what the kernel has, a line for each rule and element, in order; rules
// keep theirs within their chain.
func listing(t testing.TB, ns *netlab.Namespace) string {
	t.Helper()
	out, err := ns.Output("nft", "list", "ruleset")
	must(t, err)
	var lines []string
	table, object, number := "", "", 0
	elements := false
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "table "):
			table, object, number = line, "", 0
		case strings.HasPrefix(line, "chain "), strings.HasPrefix(line, "set "), strings.HasPrefix(line, "map "):
			object, number = line, 0
		case line == "", line == "}":
		default:
			if rest, is := strings.CutPrefix(line, "elements = {"); is {
				elements, line = true, rest
			}
			if !elements {
				number++
				lines = append(lines, fmt.Sprintf("%s %s %d %s\n", table, object, number, line))
				continue
			}
			line, end := strings.CutSuffix(line, "}")
			for e := range strings.SplitSeq(line, ",") {
				if e = strings.TrimSpace(e); e != "" {
					lines = append(lines, fmt.Sprintf("%s %s %s\n", table, object, e))
				}
			}
			elements = !end
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestKernelRandomChanges does in the kernel what TestRandomChanges does in memory.
func TestKernelRandomChanges(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 9))
			k, ns := labKeeper(t)
			node := nodeN(1)
			p := NewPlanner(node)
			services := map[Name]Service{}
			steps := 40
			if testing.Short() {
				steps = 10
			}
			for step := range steps {
				s := randomService(r, r.IntN(8))
				old, known := services[s.Name]
				if known && r.IntN(3) > 0 {
					s = edited(r, old)
				}
				if known && r.IntN(4) == 0 {
					delete(services, s.Name)
					p.Delete(s.Name)
				} else {
					services[s.Name] = s
					p.Set(s)
				}
				if r.IntN(10) == 0 {
					node = nodeN(1 + r.IntN(2))
					p.SetNode(node)
				}
				var result Result
				must(t, ns.Do(func() (err error) {
					if step > 0 && r.IntN(8) == 0 {
						kernelDamage(t, r, ns)
						k.tables.Forget()
					}
					result, err = k.Sync(t.Context(), p.Ruleset())
					return err
				}))
				if step%5 != 4 {
					continue
				}
				must(t, ns.Do(func() (err error) {
					result, err = k.Verify(t.Context(), p.Ruleset())
					return err
				}))
				if result.Elements > 0 || len(result.Found) > 0 {
					t.Fatalf("step %d: Sync had left what Verify found: %v", step, result.Found)
				}
				fresh, other := labKeeper(t)
				planned := Plan(node, slices.Collect(maps.Values(services)))
				must(t, other.Do(func() error {
					_, err := fresh.Verify(t.Context(), planned)
					return err
				}))
				before := listing(t, ns)
				if got, want := renumbered(t, before), renumbered(t, listing(t, other)); got != want {
					t.Fatalf("step %d: got what a fresh start would not:\n%s", step, differences(got, want))
				}
				must(t, ns.Do(func() error {
					again := NewKeeper(nil)
					defer again.tables.(*nft.Keeper).Close()
					var err error
					result, err = again.Verify(t.Context(), planned)
					return err
				}))
				if got := listing(t, ns); result.Elements > 0 || got != before {
					t.Fatalf("step %d: another process begins with writing %d elements: %s", step, result.Elements, differences(got, before))
				}
				must(t, ns.Do(func() (err error) {
					result, err = k.Verify(t.Context(), p.Ruleset())
					return err
				}))
				if result.Elements+result.Objects > 0 {
					t.Fatalf("step %d: a second Verify: %+v", step, result)
				}
			}
		})
	}
}

func kernelDamage(t *testing.T, r *rand.Rand, ns *netlab.Namespace) {
	t.Helper()
	damages := []string{
		"flush ruleset",
		"delete table ip flatnet-services",
		"flush map ip flatnet-services services",
		"flush chain ip flatnet-services dispatch",
		"add rule ip flatnet-services prerouting drop",
		"add chain ip6 flatnet-services stranger { type filter hook input priority 0; policy drop; }",
		"add set ip flatnet-services stranger { type mark; }",
		"add element ip flatnet-services services { 10.9.9.9 . tcp . 80 : drop }",
		"add element ip flatnet-services sources-tcp { 10.9.9.9 . 80 . 10.0.0.1-10.0.0.9 }",
		"add element ip flatnet-services hairpin { 10.9.9.9 . 10.9.9.8 }",
		"flush set ip6 flatnet-services own",
		"add element ip flatnet-services own { 10.9.0.0/16 }",
		"add chain ip flatnet-services prerouting { policy drop; }",
		"add table ip flatnet-services { flags dormant; }",
	}
	if _, err := ns.Output("nft", damages[r.IntN(len(damages))]); err != nil {
		t.Fatal(err)
	}
}
