package closed

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

func addresses(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

// check compares what is closed.
func check(t *testing.T, table *Table, want ...string) {
	t.Helper()
	got, err := table.Addresses()
	if err != nil || fmt.Sprint(got) != fmt.Sprint(addresses(want...)) {
		t.Errorf("closed are %v, %v; want %v", got, err, want)
	}
}

// there reports whether the table is there, and whether it has its chains.
func there(t *testing.T) (exists, right bool) {
	t.Helper()
	c, err := nft.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	right = true
	for _, want := range chains() {
		there, as, err := c.Chain(id, want)
		if err != nil {
			t.Fatal(err)
		}
		exists, right = exists || there, right && as
	}
	return exists, right
}

func TestCloseAndOpen(t *testing.T) {
	node := netlab.Start(t).Node("node")
	node.Test(t, func() {
		table := &Table{}
		check(t, table)
		if err := table.Open(addresses("10.1.0.2")...); err != nil {
			t.Errorf("opening without a table: %v", err)
		}
		if err := errors.Join(table.Close(addresses("10.1.0.2"), false, false), table.Close(nil, true, true), table.Open()); err != nil {
			t.Error(err)
		}
		if exists, _ := there(t); exists {
			t.Error("there is a table that nobody needs")
		}
		for range 2 {
			for _, c := range []struct {
				of              []netip.Addr
				ingress, egress bool
			}{
				{addresses("10.1.0.2", "fd00::2"), true, true},
				{addresses("10.1.0.3", "fd00::3"), true, false},
				{addresses("10.1.0.4"), false, true},
				{addresses("fd00::5"), true, false},
			} {
				if err := table.Close(c.of, c.ingress, c.egress); err != nil {
					t.Fatal(err)
				}
			}
			check(t, table, "10.1.0.2", "10.1.0.3", "10.1.0.4", "fd00::2", "fd00::3", "fd00::5")
			if exists, right := there(t); !exists || !right {
				t.Errorf("chain exists: %v, is right: %v", exists, right)
			}
		}
		if ruleset, err := node.Output("nft", "list", "ruleset"); err == nil {
			for _, want := range []string{
				"type filter hook forward priority filter; policy accept;", "ct state established,related accept",
				"ip daddr @ingress4 counter packets 0 bytes 0 drop", "ip6 daddr @ingress6 counter packets 0 bytes 0 drop",
				"ip saddr @egress4 counter packets 0 bytes 0 drop", "ip6 saddr @egress6 counter packets 0 bytes 0 drop",
				"type filter hook output priority filter; policy accept;", "fib saddr type local accept",
			} {
				if !strings.Contains(ruleset, want) {
					t.Errorf("nft does not show %q:\n%s", want, ruleset)
				}
			}
		} else if errors.Is(err, exec.ErrNotFound) {
			t.Log("the program nft is missing: the ruleset's text is not compared (Debian package nftables)")
		} else {
			t.Error(err)
		}
		if err := table.Open(addresses("10.1.0.2", "fd00::2", "fd00::5", "10.1.0.77")...); err != nil {
			t.Error(err)
		}
		check(t, table, "10.1.0.3", "10.1.0.4", "fd00::3")
		if err := table.Open(addresses("10.1.0.2")...); err != nil {
			t.Errorf("opening twice: %v", err)
		}
		// Others' records may be elsewhere: the sets show that they are there.
		if err := table.Clear(); err != nil {
			t.Error(err)
		}
		check(t, table, "10.1.0.3", "10.1.0.4", "fd00::3")
		if err := table.Open(addresses("10.1.0.3", "10.1.0.4", "fd00::3")...); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := table.Clear(); err != nil {
				t.Error(err)
			}
		}
		if exists, _ := there(t); exists {
			t.Error("the table is left")
		}
	})
}

func TestRemoveOpensAll(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		table := &Table{}
		if removed, err := table.Remove(); removed != "" || err != nil {
			t.Errorf("without a table: %q, %v", removed, err)
		}
		if err := table.Close(addresses("10.1.0.2"), true, true); err != nil {
			t.Fatal(err)
		}
		if removed, err := table.Remove(); removed != "nftables table inet flatnet-closed" || err != nil {
			t.Errorf("removed %q, %v", removed, err)
		}
		check(t, table)
	})
}

// What somebody has taken of the table is made again by who needs it.
func TestPartsThatAreMissing(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		table := &Table{}
		c, err := nft.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		bare := &nft.Transaction{}
		bare.AddTable(id, "")
		bare.AddSet(id, set(Egress, false))
		if err := c.Run(bare); err != nil {
			t.Fatal(err)
		}
		check(t, table)
		if err := table.Open(addresses("10.1.0.2", "fd00::2")...); err != nil {
			t.Error(err)
		}
		if err := table.Close(addresses("10.1.0.2"), true, false); err != nil {
			t.Fatal(err)
		}
		check(t, table, "10.1.0.2")
		if exists, right := there(t); !exists || !right {
			t.Errorf("chain exists: %v, is right: %v", exists, right)
		}
	})
}

// A change that fails is said, and has changed nothing.
func TestChangesThatFail(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		injected := errors.New("injected fault")
		failing := &Table{Step: func(string) error { return injected }}
		table := &Table{}
		if err := failing.Close(addresses("10.1.0.2"), true, true); !errors.Is(err, injected) {
			t.Errorf("closing: %v", err)
		}
		check(t, table)
		if err := table.Close(addresses("10.1.0.2"), true, true); err != nil {
			t.Fatal(err)
		}
		if err := failing.Open(addresses("10.1.0.2")...); !errors.Is(err, injected) {
			t.Errorf("opening: %v", err)
		}
		if _, err := failing.Remove(); !errors.Is(err, injected) {
			t.Errorf("removing: %v", err)
		}
		check(t, table, "10.1.0.2")
	})
}

// Many come and go at the same time, as processes of the plugin do, and nobody's
// address is lost or left.
func TestManyAtATime(t *testing.T) {
	node := netlab.Start(t).Node("node")
	var all sync.WaitGroup
	for i := range 8 {
		own := addresses(fmt.Sprintf("10.1.0.%d", i+2), fmt.Sprintf("fd00::%d", i+2))
		all.Go(func() {
			err := node.Do(func() error {
				table := &Table{}
				for range 10 {
					if err := table.Close(own, true, i%2 == 0); err != nil {
						return err
					}
					if i == 0 {
						continue // stays
					}
					if err := table.Open(own...); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	node.Test(t, func() {
		check(t, &Table{}, "10.1.0.2", "fd00::2")
		if exists, right := there(t); !exists || !right {
			t.Errorf("chain exists: %v, is right: %v", exists, right)
		}
	})
}

// A table of an earlier version gets the rules of this one, and what is closed stays so.
func TestMend(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		changes := 0
		table := &Table{Step: func(string) error { changes++; return nil }}
		if err := table.Mend(); err != nil || changes > 0 {
			t.Errorf("without a table: %d changes, %v", changes, err)
		}
		c, err := nft.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		old := &nft.Transaction{}
		old.AddTable(id, "")
		for _, s := range sets() {
			old.AddSet(id, s)
		}
		old.RefillChain(id, nft.Chain{Name: "forward", Base: Forward.Base, Rules: []string{
			"ct state established,related accept", "ip daddr @ingress4 drop", "ip6 daddr @ingress6 drop", "ip saddr @egress4 drop", "ip6 saddr @egress6 drop",
		}})
		if err := c.Run(old); err != nil {
			t.Fatal(err)
		}
		if err := table.Close(addresses("10.1.0.2", "fd00::2"), true, false); err != nil {
			t.Fatal(err)
		}
		changes = 0
		for range 2 {
			if err := table.Mend(); err != nil || changes != 1 {
				t.Errorf("mended with %d changes, %v", changes, err)
			}
			if _, right := there(t); !right {
				t.Error("the chains are not right")
			}
		}
		check(t, table, "10.1.0.2", "fd00::2")
	})
}

// A kernel that refuses what is there for IPVS has the rest.
func TestWithoutWhatIPVSNeeds(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		tries := 0
		table := &Table{Step: func(operation string) error {
			if operation == "nft make closed" {
				if tries++; tries == 1 {
					return &nft.Refusal{Doing: "adding a rule", Err: unix.ENOENT}
				}
			}
			return nil
		}}
		if err := table.Close(addresses("10.1.0.2"), true, true); err != nil {
			t.Fatal(err)
		}
		check(t, table, "10.1.0.2")
		c, err := nft.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, want := range chains() {
			if _, right, err := c.Chain(id, want); err != nil || right != (want.Name != Output.Name) {
				t.Errorf("chain %s is there: %v, %v", want.Name, right, err)
			}
		}
	})
}

// What it costs to begin: a transaction, and one more for each table that is missing.
func TestWhatBeginCosts(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		var steps []string
		table := &Table{Step: func(operation string) error { steps = append(steps, operation); return nil }}
		c, err := nft.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		costs := func(when string, ingress bool, want ...string) {
			t.Helper()
			steps = nil
			if err := table.Begin(addresses("10.1.0.2", "fd00::2"), ingress, false); err != nil || !slices.Equal(steps, want) {
				t.Errorf("%s: %q, %v; want %q", when, steps, err, want)
			}
		}
		costs("no table, and nothing is closed", false, "nft evict")
		costs("no table", true, "nft close", "nft close", "nft make closed")
		costs("no rules", true, "nft close", "nft close")
		rules := &nft.Transaction{}
		rules.AddTable(PolicyTable, "")
		rules.AddSet(PolicyTable, Evicted(false))
		rules.AddSet(PolicyTable, Evicted(true))
		if err := c.Run(rules); err != nil {
			t.Fatal(err)
		}
		costs("both", true, "nft close")
		costs("both, and nothing is closed", false, "nft evict")
		if _, err := table.Remove(); err != nil {
			t.Fatal(err)
		}
		costs("nobody was closed", true, "nft close", "nft make closed")
		check(t, table, "10.1.0.2", "fd00::2")
	})
}

// Addresses are evicted where there is a set for them, and closed whether there is or not.
func TestBegin(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		table := &Table{}
		c, err := nft.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		evicted := func() (all []string) {
			t.Helper()
			for _, ipv6 := range []bool{false, true} {
				if err := c.Elements(PolicyTable, Evicted(ipv6), func(e nft.Element) { all = append(all, Evicted(ipv6).Text(e)) }); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(all) // a set has no order
			return all
		}
		if err := table.Begin(addresses("10.1.0.2"), false, false); err != nil {
			t.Error(err)
		}
		if err := table.Begin(addresses("10.1.0.2", "fd00::2"), true, false); err != nil {
			t.Error(err)
		}
		check(t, table, "10.1.0.2", "fd00::2")
		rules := &nft.Transaction{}
		rules.AddTable(PolicyTable, "")
		rules.AddSet(PolicyTable, Evicted(false))
		rules.AddSet(PolicyTable, Evicted(true))
		if err := c.Run(rules); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := table.Begin(addresses("10.1.0.3", "fd00::3"), false, true); err != nil {
				t.Error(err)
			}
		}
		check(t, table, "10.1.0.2", "10.1.0.3", "fd00::2", "fd00::3")
		if got := fmt.Sprint(evicted()); got != "[10.1.0.3 fd00::3]" {
			t.Errorf("evicted are %s", got)
		}
		// Without the table of closed pods.
		if _, err := table.Remove(); err != nil {
			t.Fatal(err)
		}
		if err := table.Begin(addresses("fd00::4"), true, true); err != nil {
			t.Error(err)
		}
		check(t, table, "fd00::4")
		if got := fmt.Sprint(evicted()); got != "[10.1.0.3 fd00::3 fd00::4]" {
			t.Errorf("evicted are %s", got)
		}
		injected := errors.New("injected fault")
		failing := &Table{Step: func(operation string) error {
			if operation == "nft evict" {
				return injected
			}
			return nil
		}}
		if err := failing.Begin(addresses("10.1.0.5"), false, false); !errors.Is(err, injected) {
			t.Errorf("what cannot be evicted: %v", err)
		}
	})
}

func TestPoliced(t *testing.T) {
	for _, c := range []struct {
		of   List
		want bool
	}{
		{List{}, false},
		{List{Namespaces: map[string][]string{"free": {}}}, false},
		{List{Namespaces: map[string][]string{"free": {}, "shop": {Egress}}}, true},
		{List{Others: []string{Ingress}}, true},
	} {
		if got := c.of.Policed(); got != c.want {
			t.Errorf("%v: %v", c.of, got)
		}
	}
}
