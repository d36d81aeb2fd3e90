package nft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// randomTables returns tables of few distinct objects, so that much is there twice in a
// row, and much in another shape.
func randomTables(r *rand.Rand) (all []Table) {
	for _, id := range []ID{{IPv4, "flatnet-test"}, {IPv6, "flatnet-test"}, {INet, "flatnet-test"}} {
		if r.IntN(5) > 0 {
			all = append(all, randomTable(r, id))
		}
	}
	return all
}

func randomTable(r *rand.Rand, id ID) Table {
	t := Table{ID: id}
	maybe := func() bool { return r.IntN(4) > 0 }
	if maybe() && id.Family != IPv6 {
		var prefixes []netip.Prefix
		for range r.IntN(6) {
			prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(2)), 0}), 12+r.IntN(20)))
		}
		s := Set{Name: "ranges", Type: "type ipv4_addr", Flags: "interval", Elements: Ranges(nil).With(prefixes...)}
		if r.IntN(8) == 0 {
			s = Set{Name: "ranges", Type: "type ipv4_addr", Elements: Ranges{{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1")}}}
		}
		t.Sets = append(t.Sets, s)
		t.Chains = append(t.Chains, Chain{Name: "input", Base: "type filter hook input priority filter; policy accept;", Rules: []string{"ip saddr @ranges accept", "ip daddr != @ranges return"}[r.IntN(2):]})
	}
	targets := 1 + r.IntN(3)
	for i := range targets {
		t.Chains = append(t.Chains, Chain{Name: fmt.Sprint("target-", i), Rules: []string{"meta mark 7 return", "ct state established accept", "drop"}[r.IntN(3):]})
	}
	if maybe() {
		var list List
		for port := range 6 {
			if maybe() {
				list = append(list, Element{
					Key: string(Key(nil).Number(uint32(80 + port))), Value: fmt.Sprintf("goto target-%d", r.IntN(targets)), Comment: []string{"", "one", "two"}[r.IntN(3)],
				})
			}
		}
		t.Sets = append(t.Sets, Set{Name: "ports", Type: "type mark : verdict", Elements: list})
		hook := []string{"prerouting", "forward"}[r.IntN(2)]
		t.Chains = append(t.Chains, Chain{Name: "hooked", Base: "type filter hook " + hook + " priority 10; policy accept;", Rules: []string{"meta mark vmap @ports"}})
	}
	return t
}

// scripts are what somebody else does.
var scripts = []string{
	"flush ruleset", "delete table ip flatnet-test", "flush set inet flatnet-test ranges", "flush map ip flatnet-test ports", "flush chain ip6 flatnet-test target-0",
	"add rule ip flatnet-test input drop", "add chain inet flatnet-test stranger { type filter hook input priority 0; policy drop; }", "add chain ip flatnet-test stranger",
	"add set ip flatnet-test stranger { type mark; }", "add element ip flatnet-test ports { 99 : drop }", "add element ip6 flatnet-test ranges { 192.0.2.0/24 }",
	"add table inet flatnet-test { flags dormant; }", "delete chain ip flatnet-test hooked", "add table ip other; add chain ip other x",
}

var keptIDs = []ID{{IPv4, "flatnet-test"}, {IPv6, "flatnet-test"}, {INet, "flatnet-test"}}

// found are the differences that another keeper finds.
func foundByAnother(t *testing.T, want []Table) []string {
	t.Helper()
	k := &Keeper{Keeps: keptIDs}
	defer k.Close()
	return verify(t, k, want).Found
}

// TestRandomTables: whatever was wanted before, and whatever somebody else did to it, the
// tables are what is wanted, and what a fresh start would make.
func TestRandomTables(t *testing.T) {
	needNft(t)
	steps := 300
	if testing.Short() {
		steps = 60
	}
	lab := netlab.Start(t)
	node, fresh := lab.Node("node"), lab.Node("fresh")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 14))
	k := &Keeper{Keeps: keptIDs}
	for step := range steps {
		want := randomTables(r)
		var have, fromNothing string
		node.Test(t, func() {
			if r.IntN(3) == 0 {
				// Some of it is not there: nothing happens then.
				_, _ = node.Output("nft", scripts[r.IntN(len(scripts))])
				k.Forget()
			}
			if _, _, err := k.Sync(t.Context(), want); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			if step%3 > 0 {
				return
			}
			// A chain that is not needed may stay until all is compared.
			verify(t, k, want)
			if found := foundByAnother(t, want); len(found) > 0 {
				t.Fatalf("step %d: %s", step, strings.Join(found, "\n"))
			}
			have = nft(t, "list ruleset")
		})
		if step%3 > 0 || t.Failed() {
			continue
		}
		fresh.Test(t, func() {
			nft(t, "flush ruleset")
			k := &Keeper{Keeps: keptIDs}
			defer k.Close()
			verify(t, k, want)
			fromNothing = nft(t, "list ruleset")
		})
		others := strings.NewReplacer("table ip other {\n\tchain x {\n\t}\n}\n", "")
		if sorted(others.Replace(have)) != sorted(fromNothing) {
			t.Fatalf("step %d: there is\n%s\na fresh start makes\n%s", step, have, fromNothing)
		}
	}
}

// TestTwoWriters: of two who want different things the last has it, and neither is left
// with a half.
func TestTwoWriters(t *testing.T) {
	node := netlab.Start(t).Node("node")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	wants := [2][]Table{}
	for i := range wants {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		for len(wants[i]) != len(keptIDs) {
			wants[i] = randomTables(r)
		}
	}
	var writers sync.WaitGroup
	for i := range wants {
		writers.Go(func() {
			if err := node.Do(func() error {
				k := &Keeper{Keeps: keptIDs}
				defer k.Close()
				for range 30 {
					// The other may be in the way more often than is tried.
					if _, err := k.Verify(t.Context(), wants[i]); err != nil && !isInTheWay(err) {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	node.Test(t, func() {
		k := &Keeper{Keeps: keptIDs}
		defer k.Close()
		verify(t, k, wants[0])
		if found := foundByAnother(t, wants[0]); len(found) > 0 {
			t.Errorf("at the end: %s", strings.Join(found, "\n"))
		}
	})
}

// isInTheWay reports whether an error is that of somebody else's having written between
// reading and writing.
func isInTheWay(err error) bool {
	return slices.ContainsFunc([]error{unix.ENOENT, unix.EEXIST, unix.EBUSY, ErrInterrupted}, func(target error) bool { return errors.Is(err, target) })
}

// TestRefusedTransaction: what the kernel refuses changes nothing, and the error says
// which object it is about.
func TestRefusedTransaction(t *testing.T) {
	needNft(t)
	netlab.Start(t).Node("node").Test(t, func() {
		want := every()
		k := &Keeper{Keeps: idsOf(want)}
		defer k.Close()
		verify(t, k, want)
		before := nft(t, "list ruleset")
		refused := every()
		refused[0].Sets[5].Elements = rangesOf("192.168.0.7/32")
		refused[1].Chains[0].Rules = append(refused[1].Chains[0].Rules, "goto nowhere")
		_, _, err := k.Sync(t.Context(), refused)
		var refusal *Refusal
		if !errors.As(err, &refusal) || !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), `chain ip6 flatnet-test guard the rule "goto nowhere"`) {
			t.Errorf("error is %v", err)
		}
		if now := nft(t, "list ruleset"); sorted(now) != sorted(before) {
			t.Errorf("now there is\n%s\nbefore there was\n%s", now, before)
		}
		c, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tx := &Transaction{}
		tx.DeleteElements(want[0].ID, want[0].Sets[5], rangesOf("192.168.0.1/32", "192.168.0.9/32").All)
		if err := c.Run(tx); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "deleting from set ip flatnet-test nodes") {
			t.Errorf("error is %v", err)
		} else {
			t.Log(err) // newer kernels say which element
		}
		if r := verify(t, k, want); r.Count != 0 {
			t.Errorf("after it: %s", strings.Join(r.Found, "\n"))
		}
	})
}

// TestTransactionOfAGeneration: what goes by what was read is done only as long as nobody
// has written since.
func TestTransactionOfAGeneration(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		c, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		one, other := ID{INet, "one"}, ID{INet, "other"}
		add := func(id ID, generation uint32) error {
			tx := &Transaction{Generation: generation}
			tx.AddTable(id, "")
			return c.Run(tx)
		}
		for _, err := range []error{add(ID{INet, "first"}, 0), add(ID{INet, "second"}, 0)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		read, err := c.Generation()
		if err != nil {
			t.Fatal(err)
		}
		if err := add(one, read); err != nil {
			t.Fatalf("nobody has written since generation %d: %v", read, err)
		}
		if err := add(other, read); !errors.Is(err, ErrInterrupted) {
			t.Errorf("a table was added since generation %d, and the error is %v", read, err)
		}
		if there, err := c.Tables(); err != nil || !slices.Contains(there, one) || slices.Contains(there, other) {
			t.Errorf("tables are %v, %v", there, err)
		}
		if err := add(other, 0); err != nil {
			t.Errorf("of no generation: %v", err)
		}
	})
}

// TestRefusedFeature: where the kernel refuses rules of a feature, the others are there,
// with what is safe in their place, and as soon as it takes them they are.
func TestRefusedFeature(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		want := every()
		k := &Keeper{Keeps: idsOf(want)}
		defer k.Close()
		spoilt := every()
		c := &spoilt[0].Chains[0]
		c.Feature, c.Rules, c.Spare = "refusing", []string{"goto nowhere"}, []string{"drop"}
		verify(t, k, spoilt)
		if refused := k.Refused(spoilt[0].ID); len(refused) != 1 || !strings.Contains(refused["refusing"], "goto nowhere") {
			t.Errorf("refused is %q", refused)
		}
		spared := every()
		spared[0].Chains[0].Rules = []string{"drop"}
		other := &Keeper{Keeps: idsOf(want)}
		defer other.Close()
		if r := verify(t, other, spared); r.Count != 0 {
			t.Errorf("in its place: %s", strings.Join(r.Found, "\n"))
		}
		verify(t, k, want)
		if refused := k.Refused(want[0].ID); len(refused) != 0 {
			t.Errorf("refused is still %q", refused)
		}
		if r := verify(t, other, want); r.Count != 0 {
			t.Errorf("at the end: %s", strings.Join(r.Found, "\n"))
		}
	})
}

// TestLargeTable is built in pieces, compared, and changed by one element without being
// read.
func TestLargeTable(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		var all List
		for i := range 100_000 {
			all = append(all, Element{Key: string(Key(nil).Address(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})).Port(80).Number(0)), Value: string(Key(nil).Number(uint32(i)))})
		}
		elements := &counted{List: all}
		want := []Table{{ID: ID{IPv4, "flatnet-test"}, Sets: []Set{{Name: "large", Type: "type ipv4_addr . inet_service . mark : mark", Elements: elements}},
			Chains: []Chain{{Name: "input", Base: "type filter hook input priority filter; policy accept;"}}}}
		k := &Keeper{Keeps: keptIDs}
		defer k.Close()
		if r := verify(t, k, want); r.Elements != len(all) {
			t.Errorf("%d elements were written", r.Elements)
		}
		if found := foundByAnother(t, want); len(found) > 0 {
			t.Error(found)
		}
		before := elements.asked
		more := Element{Key: string(Key(nil).Address(netip.MustParseAddr("10.9.9.9")).Port(80).Number(0)), Value: string(Key(nil).Number(1))}
		r, compared, err := k.Sync(t.Context(), want, Delta{Table: want[0].ID, Set: "large", Deleted: all[:1], Added: []Element{more}})
		if err != nil || compared || r.Elements != 2 || elements.asked != before {
			t.Errorf("a change: %+v, compared %t, asked %d times, %v", r, compared, elements.asked-before, err)
		}
		elements.List = append(slices.Clone(all[1:]), more)
		slices.SortFunc(elements.List, func(a, b Element) int { return strings.Compare(a.Key, b.Key) })
		if found := foundByAnother(t, want); len(found) > 0 {
			t.Error(found)
		}
	})
}

// counted are elements that count how often all of them are asked for.
type counted struct {
	List
	asked int
}

func (c *counted) All(yield func(Element) bool) {
	c.asked++
	c.List.All(yield)
}
