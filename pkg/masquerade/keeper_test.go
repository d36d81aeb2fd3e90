package masquerade

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// What the keeper writes is what nft makes of the text.
func TestTextIsWhatIsWritten(t *testing.T) {
	needNFT(t)
	for _, want := range []Config{full(), {IPv6: true, Exempt: prefixes("::/0")}, {GuardIPv4: true}, {ClampMSS: true}} {
		ruleset := Plan(want)
		var listings [2]string
		for i, how := range []func(node *netlab.Node){
			func(*netlab.Node) { apply(t, &Keeper{}, ruleset, -1) },
			func(node *netlab.Node) { runNFT(t, node, ruleset.String()) },
		} {
			inNode(t, func(node *netlab.Node) {
				how(node)
				expect(t, ruleset)
				listing, err := node.Output("nft", "list", "ruleset")
				if err != nil {
					t.Fatal(err)
				}
				listings[i] = normal(listing)
			})
		}
		if listings[0] != listings[1] {
			t.Errorf("the keeper made\n%s\nnft made\n%s", listings[0], listings[1])
		}
		if text := normal(ruleset.String()); listings[0] != text {
			t.Errorf("nft lists\n%s\nthe ruleset's text is\n%s", listings[0], text)
		}
	}
}

func TestSync(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		k := &Keeper{}
		c := full()
		apply(t, k, Plan(c), 1)
		expect(t, Plan(c))
		apply(t, k, Plan(c), 0)
		// One node more: a prefix and an address of each family.
		c.Pods = append(c.Pods, prefixes("10.244.3.0/24", "fd00:244:3::/64")...)
		c.Nodes = append(c.Nodes, addresses("172.30.0.3", "fd00:30::3")...)
		apply(t, k, Plan(c), 4)
		expect(t, Plan(c))
		// It gets another podCIDR, which overlaps the old one.
		c.Pods[4] = netip.MustParsePrefix("10.244.3.0/25")
		apply(t, k, Plan(c), 2)
		expect(t, Plan(c))
		c.IPv6 = false
		apply(t, k, Plan(c), -1)
		expect(t, Plan(c))
		// Another keeper, of a new process, finds everything right.
		other := &Keeper{}
		apply(t, other, Plan(c), 0)
		c.GuardIPv4 = false
		apply(t, other, Plan(c), 1)
		expect(t, Plan(c))
		// What the first one knows is no longer so. Nothing to do but to find out.
		if n, err := k.Verify(Plan(c)); n != 0 || err != nil {
			t.Errorf("%d repairs, %v", n, err)
		}
		for _, want := range []int{1, 0} {
			apply(t, k, Plan(Config{}), want)
			if got := tableNames(t); len(got) != 0 {
				t.Errorf("left behind: %v", got)
			}
		}
	})
}

func TestSyncFindsOutThatItsTableIsGone(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		k := &Keeper{}
		c := full()
		for _, damage := range []func(c *nftables.Conn){
			func(c *nftables.Conn) { c.FlushRuleset() },
			func(c *nftables.Conn) {
				c.FlushChain(&nftables.Chain{Table: table(), Name: "postrouting"})
				c.DelSet(&nftables.Set{Table: table(), Name: "nodes4"})
			},
			// The element that will be removed is no longer there.
			func(conn *nftables.Conn) {
				s := &nftables.Set{Table: table(), Name: "nodes4", KeyType: nftables.TypeIPAddr}
				if err := conn.SetDeleteElements(s, []nftables.SetElement{{Key: []byte{172, 30, 0, 1}}}); err != nil {
					t.Error(err)
				}
			},
		} {
			c.Nodes = addresses("172.30.0.1", "172.30.0.2")
			apply(t, k, Plan(c), -1)
			write(t, damage)
			c.Nodes = addresses("172.30.0.2", "172.30.0.4")
			apply(t, k, Plan(c), -1)
			expect(t, Plan(c))
		}
	})
}

// The state after any history is the state from scratch.
func TestRandomTransitions(t *testing.T) {
	steps := 3000
	if testing.Short() {
		steps = 300
	}
	inNode(t, func(*netlab.Node) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 70))
		k := &Keeper{Log: failing(t)}
		for step := range steps {
			want := Plan(random(r))
			apply(t, k, want, -1)
			if step%3 > 0 {
				continue // several steps without a look in between
			}
			if found := differences(t, want); len(found) > 0 {
				t.Fatalf("step %d: %s\nwanted:\n%s", step, strings.Join(found, "; "), want)
			}
			if step%100 == 0 {
				k.Close() // a new process
				k = &Keeper{Log: failing(t)}
				apply(t, k, want, 0)
			}
		}
	})
}

// random makes configurations of few distinct values, so that much changes and
// much overlaps.
func random(r *rand.Rand) Config {
	// A change of these makes a new table, which takes the kernel ten times as long.
	c := Config{IPv4: r.IntN(50) > 0, IPv6: r.IntN(50) > 0, GuardIPv4: r.IntN(50) == 0, ClampMSS: r.IntN(50) > 0}
	for node := range r.IntN(12) {
		if r.IntN(3) == 0 {
			continue
		}
		lengths := []int{24, 25, 24, 26}
		pod4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(node), 0}), lengths[r.IntN(4)])
		pod6 := netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd00:244:%x::", node)), []int{48, 64, 56}[r.IntN(3)])
		c.Pods = append(c.Pods, pod4, pod6)
		if node == 1 {
			c.Own = append(c.Own, pod4, pod6)
		}
		for range r.IntN(3) {
			c.Nodes = append(c.Nodes, netip.AddrFrom4([4]byte{172, 30, 0, byte(r.IntN(8))}), netip.MustParseAddr(fmt.Sprintf("fd00:30::%x", r.IntN(8))))
		}
	}
	for range r.IntN(6) {
		c.Exempt = append(c.Exempt,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.IntN(256)), byte(r.IntN(2)), 0, byte(r.IntN(2))}), r.IntN(33)),
			netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("%x:%x::%x", r.IntN(0x10000), r.IntN(2), r.IntN(2))), r.IntN(129)))
	}
	r.Shuffle(len(c.Pods), func(i, j int) { c.Pods[i], c.Pods[j] = c.Pods[j], c.Pods[i] })
	return c
}

func TestVerifyRepairs(t *testing.T) {
	chainOf := func(name string) *nftables.Chain { return &nftables.Chain{Table: table(), Name: name} }
	setOf := func(name string) *nftables.Set {
		return &nftables.Set{Table: table(), Name: name, KeyType: nftables.TypeIPAddr, Interval: name != "nodes4"}
	}
	for _, damage := range []struct {
		name    string
		repairs int
		found   string
		do      func(c *nftables.Conn) error
	}{
		{"nothing", 0, "", func(*nftables.Conn) error { return nil }},
		{"ruleset flushed", 1, "table is missing", func(c *nftables.Conn) error { c.FlushRuleset(); return nil }},
		{"table deleted", 1, "table is missing", func(c *nftables.Conn) error { c.DelTable(table()); return nil }},
		{"chain emptied", 1, "chain postrouting has other rules", func(c *nftables.Conn) error { c.FlushChain(chainOf("postrouting")); return nil }},
		{"chain deleted", 1, "chain guard is missing", func(c *nftables.Conn) error {
			c.FlushChain(chainOf("guard"))
			c.DelChain(chainOf("guard"))
			return nil
		}},
		{"foreign rule", 1, "chain postrouting has other rules", func(c *nftables.Conn) error {
			c.InsertRule(&nftables.Rule{Table: table(), Chain: chainOf("postrouting"), Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
			return nil
		}},
		{"foreign chain", 1, "chain other is not wanted", func(c *nftables.Conn) error { c.AddChain(chainOf("other")); return nil }},
		{"foreign base chain", 1, "chain other is not wanted", func(c *nftables.Conn) error {
			ch := chainOf("other")
			ch.Type, ch.Hooknum, ch.Priority = nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter
			c.AddChain(ch)
			return nil
		}},
		{"policy drop", 1, "chain guard is not", func(c *nftables.Conn) error {
			ch, drop := chainOf("guard"), nftables.ChainPolicyDrop
			ch.Policy = &drop
			c.AddChain(ch)
			return nil
		}},
		{"foreign set", 1, "set other is not wanted", func(c *nftables.Conn) error {
			return c.AddSet(&nftables.Set{ID: 99, Table: table(), Name: "other", KeyType: nftables.TypeInetService}, nil)
		}},
		{"set of another type", 2, "set nodes4 is of another type", func(c *nftables.Conn) error {
			c.FlushChain(chainOf("postrouting"))
			s := setOf("nodes4")
			c.DelSet(s)
			s.Interval, s.ID = true, 99
			if err := c.AddSet(s, nil); err != nil {
				return err
			}
			return nil
		}},
		{"set of another key", 2, "set nodes4 is of another type", func(c *nftables.Conn) error {
			c.FlushChain(chainOf("postrouting"))
			s := setOf("nodes4")
			c.DelSet(s)
			s.KeyType, s.ID = nftables.TypeMark, 99
			return c.AddSet(s, nil)
		}},
		{"set emptied", 2, "set pods4 lacks 2 of 2: 10.244.1.0/24, 10.244.2.0/24", func(c *nftables.Conn) error { c.FlushSet(setOf("pods4")); return nil }},
		{"element missing", 1, "set nodes4 lacks 1 of 2: 172.30.0.1", func(c *nftables.Conn) error {
			return c.SetDeleteElements(setOf("nodes4"), []nftables.SetElement{{Key: []byte{172, 30, 0, 1}}})
		}},
		{"foreign element", 1, "set nodes4 has 1 too many: 1.2.3.4", func(c *nftables.Conn) error {
			return c.SetAddElements(setOf("nodes4"), []nftables.SetElement{{Key: []byte{1, 2, 3, 4}}})
		}},
		{"foreign interval", 1, "set pods4 has 1 too many: 1.2.3.4-1.2.3.6", func(c *nftables.Conn) error {
			return c.SetAddElements(setOf("pods4"), []nftables.SetElement{{Key: []byte{1, 2, 3, 4}}, {Key: []byte{1, 2, 3, 7}, IntervalEnd: true}})
		}},
		{"interval without an end", 1, "set pods4 has 1 too many: 192.0.0.0/2", func(c *nftables.Conn) error {
			return c.SetAddElements(setOf("pods4"), []nftables.SetElement{{Key: []byte{192, 0, 0, 0}}})
		}},
	} {
		t.Run(damage.name, func(t *testing.T) {
			inNode(t, func(*netlab.Node) {
				want := Plan(full())
				k := &Keeper{}
				apply(t, k, want, 1)
				write(t, func(c *nftables.Conn) {
					if err := damage.do(c); err != nil {
						t.Fatal(err)
					}
				})
				var log strings.Builder
				k.Log = slog.New(slog.NewTextHandler(&log, nil))
				if n, err := k.Verify(want); n != damage.repairs || err != nil {
					t.Errorf("%d repairs, %v; want %d", n, err, damage.repairs)
				}
				if !strings.Contains(log.String(), damage.found) {
					t.Errorf("logged %q, want %q", &log, damage.found)
				}
				expect(t, want)
				if n, err := k.Verify(want); n != 0 || err != nil {
					t.Errorf("again %d repairs, %v", n, err)
				}
				apply(t, k, want, 0)
			})
		})
	}
}

func TestVerifyRepairsWhatNFTDoes(t *testing.T) {
	needNFT(t)
	for _, damage := range []struct {
		script  string
		repairs int
	}{
		{"add table inet flatnet { flags dormant; }", 1},
		{"add table inet flatnet { flags dormant; }; delete chain inet flatnet guard", 2},
		// A rule with a set of its own.
		{"add rule inet flatnet guard iifgroup 70 meta nfproto ipv4 fib saddr . iif oif 0 drop", 1},
		{"flush chain inet flatnet guard; add rule inet flatnet guard iifgroup 70 fib saddr . iif oif 0 drop", 1},
		{"delete chain inet flatnet guard; add chain inet flatnet guard { type filter hook prerouting priority 0; }", 1},
		{"insert rule inet flatnet postrouting ip daddr { 1.2.3.4, 1.2.3.5 } accept", 1},
		// Chains that need each other, by a rule and by a map.
		{`add chain inet flatnet a; add chain inet flatnet b; add rule inet flatnet a jump b
		  add map inet flatnet m { type mark : verdict; elements = { 1 : jump a } }
		  insert rule inet flatnet postrouting meta mark vmap @m`, 4},
		{"delete element inet flatnet pods4 { 10.244.1.0/24 }; add element inet flatnet pods4 { 10.244.1.0/25, 10.244.1.128/25 }", 3},
	} {
		inNode(t, func(node *netlab.Node) {
			want := Plan(full())
			k := &Keeper{Log: failing(t)}
			apply(t, k, want, 1)
			runNFT(t, node, damage.script)
			if n, err := k.Verify(want); n != damage.repairs || err != nil {
				t.Errorf("%s: %d repairs, %v; want %d", damage.script, n, err, damage.repairs)
			}
			expect(t, want)
			apply(t, k, want, 0)
		})
	}
}

func TestRemove(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		foreign := &nftables.Table{Family: nftables.TableFamilyINet, Name: "other"}
		plugins := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableID.Name}
		write(t, func(c *nftables.Conn) { c.AddTable(foreign); c.AddTable(plugins) })
		k := &Keeper{}
		apply(t, k, Plan(full()), 1)
		for _, k := range []*Keeper{k, k, {}} {
			if _, err := k.Remove(); err != nil {
				t.Error(err)
			}
		}
		if got := tableNames(t); !slices.Equal(got, []string{"flatnet", "other"}) {
			t.Errorf("left: %v", got)
		}
		apply(t, k, Plan(full()), 1)
		expect(t, Plan(full()))
	})
}

// Somebody holds the table in a way that the kernel lets nobody else change.
func TestErrorNamesTheTable(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		c, err := nft.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		own(t, c)
		if _, err := (&Keeper{}).Sync(Plan(full())); err == nil || !strings.Contains(err.Error(), "table inet flatnet: ") {
			t.Errorf("got %v", err)
		}
	})
}

// Every kernel refuses who has no right to it; the error says what was refused, too.
func TestErrorWithoutRightsNamesTheTable(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		// The thread ends with the function, and its lack of rights with it.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Fatal(err)
		}
		_, err := (&Keeper{}).Sync(Plan(full()))
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "nftables") {
			t.Errorf("got %v", err)
		}
	})
}
