package rules

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

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
	var names []string
	run(t, func(c *nft.Conn) error {
		found, err := c.Tables()
		for _, f := range found {
			names = append(names, f.String())
		}
		return err
	})
	return names
}

// run does something with a socket of its own.
func run(t *testing.T, f func(c *nft.Conn) error) {
	t.Helper()
	c, err := nft.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := f(c); err != nil {
		t.Fatal(err)
	}
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
		for _, damage := range []func(t *nft.Transaction){
			func(t *nft.Transaction) { t.DeleteTable(id(nft.IPv4)); t.DeleteTable(id(nft.IPv6)) },
			func(t *nft.Transaction) { t.DeleteTable(id(nft.IPv4)) },
			func(t *nft.Transaction) { t.DeleteTable(id(nft.IPv6)) },
		} {
			if err := r.Add(need); err != nil {
				t.Fatal(err)
			}
			run(t, func(c *nft.Conn) error {
				tx := &nft.Transaction{}
				damage(tx)
				return c.Run(tx)
			})
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
