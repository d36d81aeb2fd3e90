package rules

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

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

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// inNode calls f on a thread in a fresh namespace.
func inNode(t *testing.T, f func(node *netlab.Node)) {
	t.Helper()
	node := netlab.Start(t).Node("node")
	node.Test(t, func() { f(node) })
}

func tables(t *testing.T) []string {
	t.Helper()
	c, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseLasting()
	found, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, familyName(f.Family)+" "+f.Name)
	}
	slices.Sort(names)
	return names
}

func remove(r *Rules, need Need) error {
	settle, err := r.Remove(need)
	settle()
	return err
}

func TestAddCheckRemove(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		r := &Rules{}
		a := Need{Addresses: addresses("10.1.0.2", "fd00::2"), Masquerade: true, Exempt: prefixes("10.1.0.0/16", "fd00::/64")}
		b := Need{Addresses: addresses("10.1.0.3", "fd00::3"), Masquerade: true, Exempt: prefixes("10.0.0.0/8", "fd00::/64")}
		quiet := Need{Addresses: addresses("10.1.0.4")}
		for _, need := range []Need{a, b, a, quiet} {
			if err := r.Add(need); err != nil {
				t.Fatal(err)
			}
			if err := r.Check(need); err != nil {
				t.Error(err)
			}
		}
		if ruleset, err := node.Output("nft", "list", "ruleset"); err == nil {
			t.Log(ruleset)
			for _, want := range []string{"ip saddr @masqueraded ip daddr != @exempt oifgroup != 70 masquerade fully-random",
				"fib saddr . iif oif 0 drop", "iif . ip6 saddr @verified accept", "ip6 saddr fe80::/10 accept", "add @verified { iif . ip6 saddr timeout 1m }", "10.0.0.0/8", "224.0.0.0/4"} {
				if !strings.Contains(ruleset, want) {
					t.Errorf("nft does not show %q", want)
				}
			}
		} else if errors.Is(err, exec.ErrNotFound) {
			t.Log("the program nft is missing: the ruleset's text is not compared (Debian package nftables)")
		} else {
			t.Error(err)
		}
		if got := tables(t); !slices.Equal(got, []string{"ip flatnet", "ip6 flatnet"}) {
			t.Errorf("tables %v", got)
		}
		if err := remove(r, a); err != nil {
			t.Error(err)
		}
		if err := r.Check(a); err == nil || !strings.Contains(err.Error(), "10.1.0.2") {
			t.Errorf("check after removal: %v", err)
		}
		if err := r.Check(b); err != nil {
			t.Error(err)
		}
		// Others' records may be elsewhere: the set shows that b is there.
		if err := r.Clear(); err != nil {
			t.Error(err)
		}
		if err := r.Check(b); err != nil {
			t.Error(err)
		}
		if err := remove(r, b); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := r.Clear(); err != nil {
				t.Error(err)
			}
		}
		if got := tables(t); len(got) != 0 {
			t.Errorf("left behind: %v", got)
		}
		if err := remove(r, b); err != nil {
			t.Errorf("removing twice: %v", err)
		}
	})
}

func TestRepairsWhatOthersRemoved(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		r := &Rules{}
		need := Need{Addresses: addresses("10.1.0.2", "fd00::2"), Masquerade: true}
		for _, damage := range []func(c *nftables.Conn){
			func(c *nftables.Conn) { c.FlushRuleset() },
			func(c *nftables.Conn) { c.DelTable(table(nftables.TableFamilyIPv4)) },
			func(c *nftables.Conn) { c.DelTable(table(nftables.TableFamilyIPv6)) },
		} {
			if err := r.Add(need); err != nil {
				t.Fatal(err)
			}
			c, err := connect()
			if err != nil {
				t.Fatal(err)
			}
			damage(c)
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			c.CloseLasting()
			if err := r.Check(need); err == nil {
				t.Error("damage was not noticed")
			}
			if err := r.Add(need); err != nil {
				t.Error(err)
			}
			if err := r.Check(need); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		in   []netip.Prefix
		want []span
	}{
		{prefixes("10.1.0.0/16", "10.0.0.0/8", "10.2.0.0/16"), []span{{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.255.255.255")}}},
		{prefixes("10.0.1.0/24", "10.0.0.0/24"), []span{{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.1.255")}}},
		{prefixes("10.0.0.0/24", "10.0.2.0/24"), []span{
			{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.0.255")}, {netip.MustParseAddr("10.0.2.0"), netip.MustParseAddr("10.0.2.255")}}},
		{prefixes("0.0.0.0/0", "224.0.0.0/4"), []span{{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255")}}},
		{prefixes("ff00::/8"), []span{{netip.MustParseAddr("ff00::"), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}}},
	} {
		got := ranges(nil).with(c.in)
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.in, got, c.want)
		}
		if back := rangesOf(got.elements()); !slices.Equal(back, c.want) {
			t.Errorf("%v: read back as %v", c.in, back)
		}
	}
}

func TestExemptionsOfTheWholeFamily(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		r := &Rules{}
		need := Need{Addresses: addresses("10.1.0.2", "fd00::2"), Masquerade: true, Exempt: prefixes("0.0.0.0/0", "::/0")}
		for range 2 {
			if err := r.Add(need); err != nil {
				t.Fatal(err)
			}
		}
	})
}
