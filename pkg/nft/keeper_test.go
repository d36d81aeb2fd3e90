package nft

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// every has each kind of what flatnet's tables have.
func every() []Table {
	a := netip.MustParseAddr
	prefixes := func(all ...string) (r Ranges) {
		for _, p := range all {
			r = append(r, RangeOf(netip.MustParsePrefix(p)))
		}
		return r
	}
	front := func(address string, protocol uint8, port uint16) string {
		return string(Key(nil).Address(a(address)).Protocol(protocol).Port(port))
	}
	return []Table{{
		ID: ID{IPv4, "flatnet-test"}, Comment: "what it is for",
		Sets: []Set{
			{Name: "services", Type: "type ipv4_addr . inet_proto . inet_service : verdict", Elements: List{
				{Key: front("10.0.0.1", unix.IPPROTO_TCP, 80), Value: "goto lb-tcp-2", Comment: "default/web"},
				{Key: front("10.0.0.2", unix.IPPROTO_UDP, 53), Value: "goto refuse"},
			}},
			{Name: "ids", Type: "type ipv4_addr . inet_proto . inet_service : mark", Elements: List{
				{Key: front("10.0.0.1", unix.IPPROTO_TCP, 80), Value: string(Key(nil).Number(0x70000001))},
			}},
			{Name: "remember", Type: "type mark : verdict", Elements: List{{Key: string(Key(nil).Number(0x70000001)), Value: "jump remember-10"}}},
			{Name: "hairpin", Type: "type ipv4_addr . ipv4_addr", Elements: List{{Key: string(Key(nil).Address(a("10.1.0.1")).Address(a("10.1.0.1")))}}},
			{Name: "own", Type: "type ipv4_addr", Flags: "interval", Elements: prefixes("10.0.0.0/8", "172.16.0.0/12", "240.0.0.0/4")},
			{Name: "nodes", Type: "type ipv4_addr", Elements: prefixes("192.168.0.1/32", "192.168.0.2/32")},
			{Name: "endpoints-tcp", Type: "typeof ip daddr . tcp dport . numgen random mod 65536 : ip daddr . tcp dport", Elements: List{
				{Key: string(Key(nil).Address(a("10.0.0.1")).Port(80).Number(0)), Value: string(Key(nil).Address(a("10.1.0.1")).Port(8080))},
				{Key: string(Key(nil).Address(a("10.0.0.1")).Port(80).Number(1)), Value: string(Key(nil).Address(a("10.1.0.2")).Port(8080))},
			}},
			{Name: "affinity-tcp", Type: "typeof ip saddr . ct mark : ip daddr . tcp dport", Flags: "dynamic,timeout", Size: 100},
			{Name: "sources-tcp", Type: "type ipv4_addr . inet_service . ipv4_addr", Flags: "interval", Elements: List{
				{Key: string(Key(nil).Address(a("10.0.0.1")).Port(80).Address(a("10.0.0.0"))), End: string(Key(nil).Address(a("10.0.0.1")).Port(80).Address(a("10.255.255.255")))},
			}},
		},
		Chains: []Chain{
			{Name: "refuse", Rules: []string{"meta l4proto tcp reject with tcp reset", "reject"}},
			{Name: "lb-tcp-2", Rules: []string{"meta l4proto tcp dnat ip to ip daddr . tcp dport . numgen random mod 2 map @endpoints-tcp"}},
			{Name: "remember-10", Rules: []string{"meta l4proto tcp update @affinity-tcp { ip saddr . ct mark timeout 10s : ip daddr . tcp dport }"}},
			{Name: "prerouting", Base: "type nat hook prerouting priority dstnat; policy accept;", Rules: []string{"ip daddr . meta l4proto . th dport vmap @services"}},
			{Name: "postrouting", Base: "type nat hook postrouting priority 95; policy accept;", Rules: []string{
				"ct status dnat ct mark vmap @remember", "ip saddr . ip daddr @hairpin masquerade fully-random", "ip saddr @own ip daddr != @nodes masquerade fully-random",
			}},
		},
	}, {
		ID: ID{IPv6, "flatnet-test"},
		Sets: []Set{
			{Name: "verified", Type: "typeof iif . ip6 saddr", Flags: "dynamic,timeout", Size: 65535},
			{Name: "own", Type: "type ipv6_addr", Flags: "interval", Elements: prefixes("fd00::/8", "fe80::/10")},
			{Name: "endpoints-udp", Type: "typeof ip6 daddr . udp dport . numgen random mod 65536 : ip6 daddr . udp dport", Elements: List{
				{Key: string(Key(nil).Address(a("fd00::1")).Port(53).Number(0)), Value: string(Key(nil).Address(a("fd00:1::1")).Port(5353))},
			}},
			{Name: "affinity-sctp", Type: "typeof ip6 saddr . ct mark : ip6 daddr . sctp dport", Flags: "dynamic,timeout", Size: 100},
		},
		Chains: []Chain{{Name: "guard", Base: "type filter hook prerouting priority raw; policy accept;", Rules: []string{
			"iifgroup != 70 accept", "iif . ip6 saddr @verified accept", "ip6 saddr fe80::/10 accept", "fib saddr . iif oif 0 drop", "add @verified { iif . ip6 saddr timeout 1m }",
		}}},
	}}
}

func idsOf(tables []Table) (all []ID) {
	for _, t := range tables {
		all = append(all, t.ID)
	}
	return all
}

func needNft(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("the program nft is missing (Debian package nftables)")
	}
}

// nft runs the program with a script, in the test's namespace.
func nft(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s\n%s", err, &out, script)
	}
	return out.String()
}

func verify(t *testing.T, k *Keeper, want []Table) Result {
	t.Helper()
	r, err := k.Verify(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTablesAreAsNftMakesThem: what nft makes of a table's text and what the keeper makes
// of the table are the same, to the keeper and to nft.
func TestTablesAreAsNftMakesThem(t *testing.T) {
	needNft(t)
	netlab.Start(t).Node("node").Test(t, func() {
		want := every()
		k := &Keeper{Keeps: idsOf(want)}
		defer k.Close()
		for _, table := range want {
			nft(t, table.String())
		}
		if r := verify(t, k, want); r.Count != 0 {
			t.Errorf("what nft made of the text is found to be otherwise: %s", strings.Join(r.Found, "\n"))
		}
		byNft, notes := nft(t, "list ruleset"), notesOf(t, want)
		if _, err := k.Remove(); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, k, want); r.Count != 2 {
			t.Errorf("%d differences, want two tables that are missing: %s", r.Count, strings.Join(r.Found, "\n"))
		}
		if byKeeper := nft(t, "list ruleset"); sorted(byKeeper) != sorted(byNft) {
			t.Errorf("nft made\n%s\nthe keeper\n%s", byNft, byKeeper)
		}
		for set, have := range notesOf(t, want) {
			if have != notes[set] {
				t.Errorf("%s: beside it nft notes\n%x\nand the keeper\n%x", set, notes[set], have)
			}
		}
		if r := verify(t, k, want); r.Count != 0 {
			t.Errorf("what the keeper made is found to be otherwise: %s", strings.Join(r.Found, "\n"))
		}
	})
}

// notesOf returns what is noted beside each set, and how it is declared.
func notesOf(t *testing.T, tables []Table) map[string]string {
	t.Helper()
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	notes := map[string]string{}
	for _, table := range tables {
		err := c.dump(byte(table.Family), unix.NFT_MSG_GETSET, func(a attributes) {
			var all []byte
			for _, kind := range []int{unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_DESC, unix.NFTA_SET_USERDATA} {
				all = append(all, a[kind]...)
			}
			notes[table.ID.String()+" "+a.text(unix.NFTA_SET_NAME)] = string(all)
		}, text(unix.NFTA_SET_TABLE, table.Name))
		if err != nil {
			t.Fatal(err)
		}
	}
	return notes
}

// TestDamage: whatever somebody does to a table, it is found, told and mended, and
// nothing else is written.
func TestDamage(t *testing.T) {
	needNft(t)
	for _, damage := range []struct{ script, found string }{
		{"delete element ip flatnet-test services { 10.0.0.1 . tcp . 80 }", `table ip flatnet-test: set services lacks 1 of 2: 10.0.0.1 . tcp . 80 comment "default/web" : goto lb-tcp-2`},
		{"add element ip flatnet-test nodes { 192.168.0.9 }", "table ip flatnet-test: set nodes has 1 too many: 192.168.0.9"},
		{"delete element ip flatnet-test own { 10.0.0.0/8 }; add element ip flatnet-test own { 10.0.0.0/9 }", "table ip flatnet-test: set own lacks 1 of 3: 10.0.0.0/8\ntable ip flatnet-test: set own has 1 too many: 10.0.0.0/9"},
		{"flush set ip flatnet-test sources-tcp", "table ip flatnet-test: set sources-tcp lacks 1 of 1: 10.0.0.1 . 80 . 10.0.0.0/8"},
		{"flush chain ip flatnet-test refuse", "table ip flatnet-test: chain refuse has other rules"},
		{"add rule ip flatnet-test postrouting drop", "table ip flatnet-test: chain postrouting has other rules"},
		{"insert rule ip flatnet-test prerouting counter", "table ip flatnet-test: chain prerouting has other rules"},
		{"add chain ip flatnet-test own-chain { type filter hook input priority 0; policy drop; }", "table ip flatnet-test: chain own-chain is not wanted"},
		{"add chain ip flatnet-test prerouting { policy drop; }", "table ip flatnet-test: chain prerouting is not type nat hook prerouting priority dstnat; policy accept;"},
		{"delete chain ip6 flatnet-test guard", "table ip6 flatnet-test: chain guard is missing"},
		{"add set ip flatnet-test more { type ipv4_addr; }", "table ip flatnet-test: set more is not wanted"},
		{"delete table ip6 flatnet-test", "table ip6 flatnet-test: table is missing"},
		{"add table ip flatnet-test { flags dormant; }", "table ip flatnet-test: table has flags"},
		{"flush ruleset", "table ip flatnet-test: table is missing\ntable ip6 flatnet-test: table is missing"},
		{"delete chain ip6 flatnet-test guard; delete set ip6 flatnet-test verified; add set ip6 flatnet-test verified { type ipv6_addr; }",
			"table ip6 flatnet-test: set verified is of another type\ntable ip6 flatnet-test: chain guard is missing"},
	} {
		t.Run(damage.script, func(t *testing.T) {
			netlab.Start(t).Node("node").Test(t, func() {
				want := every()
				k := &Keeper{Keeps: idsOf(want)}
				defer k.Close()
				verify(t, k, want)
				intact := nft(t, "list ruleset")
				nft(t, strings.ReplaceAll(damage.script, "; ", "\n"))
				if r := verify(t, k, want); strings.Join(r.Found, "\n") != damage.found {
					t.Errorf("found\n%s\nwant\n%s", strings.Join(r.Found, "\n"), damage.found)
				}
				if r := verify(t, k, want); r.Count != 0 {
					t.Errorf("after the repair: %s", strings.Join(r.Found, "\n"))
				}
				if now := nft(t, "list ruleset"); sorted(now) != sorted(intact) {
					t.Errorf("after the repair there is\n%s\nbefore there was\n%s", now, intact)
				}
			})
		})
	}
}

// TestChainComesBack: a chain that was not needed for a while is still there, and has its
// rules once.
func TestChainComesBack(t *testing.T) {
	netlab.Start(t).Node("node").Test(t, func() {
		k := &Keeper{Keeps: []ID{{IPv4, "flatnet-test"}}}
		defer k.Close()
		table := func(names ...string) []Table {
			t := Table{ID: k.Keeps[0]}
			for _, name := range names {
				t.Chains = append(t.Chains, Chain{Name: name, Rules: []string{"accept"}})
			}
			return []Table{t}
		}
		for _, want := range [][]Table{table("one", "two"), table("one"), table("one", "two")} {
			if _, _, err := k.Sync(t.Context(), want); err != nil {
				t.Fatal(err)
			}
		}
		if r := verify(t, k, table("one", "two")); r.Count != 0 {
			t.Errorf("found: %s", strings.Join(r.Found, "\n"))
		}
		// Once all is compared it goes, and nobody is said to have made it.
		if r := verify(t, k, table("one")); r.Count != 0 {
			t.Errorf("found: %s", strings.Join(r.Found, "\n"))
		}
		other := &Keeper{Keeps: k.Keeps}
		defer other.Close()
		if r := verify(t, other, table("one")); r.Count != 0 {
			t.Errorf("left: %s", strings.Join(r.Found, "\n"))
		}
	})
}

// TestTidy: chains that nothing needs any more go when the keeper is told to, in whatever
// order they lead to one another, and one that is needed again stays.
func TestTidy(t *testing.T) {
	needNft(t)
	netlab.Start(t).Node("node").Test(t, func() {
		k := &Keeper{Keeps: []ID{{IPv4, "flatnet-test"}}}
		defer k.Close()
		sync := func(unused int, names ...string) {
			t.Helper()
			want := Table{ID: k.Keeps[0]}
			for i, name := range names {
				c := Chain{Name: name, Rules: []string{"accept"}}
				if i > 0 {
					c.Rules = append(c.Rules, "goto "+names[i-1])
				}
				want.Chains = append(want.Chains, c)
			}
			r, compared, err := k.Sync(t.Context(), []Table{want})
			if err != nil || r.Unused != unused || compared && len(names) != 3 {
				t.Fatalf("%v: %d chains are not used (compared: %v), %v; want %d", names, r.Unused, compared, err, unused)
			}
		}
		tidy := func(left int) {
			t.Helper()
			if n, err := k.Tidy(); n != left || err != nil {
				t.Errorf("%d chains stay, %v; want %d", n, err, left)
			}
		}
		chains := func(want string) {
			t.Helper()
			var all []string
			for _, line := range strings.Split(nft(t, "list table ip flatnet-test"), "\n") {
				if name, is := strings.CutPrefix(strings.TrimSpace(line), "chain "); is {
					all = append(all, strings.TrimSuffix(name, " {"))
				}
			}
			if got := strings.Join(all, " "); got != want {
				t.Errorf("there are %q, want %q", got, want)
			}
		}
		sync(0, "one", "two", "three")
		sync(2, "three")
		chains("one two three")
		tidy(0)
		chains("three")
		sync(0, "three", "two") // needed again
		sync(1, "three")
		sync(0, "three", "two")
		tidy(0)
		chains("three two")
		// What somebody else leads to stays, and the keeper goes on as before.
		nft(t, "add chain ip flatnet-test mine; add rule ip flatnet-test mine jump two")
		sync(1, "three")
		tidy(1)
		sync(1, "three")
		nft(t, "delete chain ip flatnet-test mine")
		tidy(0)
		chains("three")
	})
}

// sorted makes two lists of the same in another order equal.
func sorted(text string) string {
	words := strings.Fields(strings.NewReplacer(",", " ", "{", " ", "}", " ").Replace(text))
	for i := range words {
		for j := i; j > 0 && words[j] < words[j-1]; j-- {
			words[j], words[j-1] = words[j-1], words[j]
		}
	}
	return strings.Join(words, " ")
}
