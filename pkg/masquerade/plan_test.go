package masquerade

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func addresses(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

// full has something of everything.
func full() Config {
	return Config{
		IPv4: true, IPv6: true, GuardIPv4: true, ClampMSS: true,
		Own:    prefixes("10.244.1.0/24", "fd00:244:1::/64"),
		Pods:   prefixes("10.244.2.0/24", "10.244.1.0/24", "fd00:244:1::/64", "fd00:244:2::/64"),
		Nodes:  addresses("172.30.0.2", "172.30.0.1", "fd00:30::1", "fd00:30::2"),
		Exempt: prefixes("192.168.0.0/16", "192.168.7.0/24", "fd12::/16"),
	}
}

const fullText = `table inet flatnet {
	set own4 {
		type ipv4_addr
		flags interval
		elements = { 10.244.1.0/24 }
	}

	set pods4 {
		type ipv4_addr
		flags interval
		elements = { 10.244.1.0/24,
		             10.244.2.0/24 }
	}

	set nodes4 {
		type ipv4_addr
		elements = { 172.30.0.1,
		             172.30.0.2 }
	}

	set exempt4 {
		type ipv4_addr
		flags interval
		elements = { 192.168.0.0/16,
		             224.0.0.0/4,
		             255.255.255.255 }
	}

	set own6 {
		type ipv6_addr
		flags interval
		elements = { fd00:244:1::/64 }
	}

	set pods6 {
		type ipv6_addr
		flags interval
		elements = { fd00:244:1::/64,
		             fd00:244:2::/64 }
	}

	set nodes6 {
		type ipv6_addr
		elements = { fd00:30::1,
		             fd00:30::2 }
	}

	set exempt6 {
		type ipv6_addr
		flags interval
		elements = { fd12::/16,
		             fe80::/10,
		             ff00::/8 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @own4 oifgroup != 70 ip daddr != @pods4 ip daddr != @nodes4 ip daddr != @exempt4 masquerade fully-random
		ip6 saddr @own6 oifgroup != 70 ip6 daddr != @pods6 ip6 daddr != @nodes6 ip6 daddr != @exempt6 masquerade fully-random
	}

	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifgroup 70 meta nfproto ipv4 fib saddr . iif oif 0 drop
	}

	chain clamp {
		type filter hook forward priority mangle; policy accept;
		tcp flags syn tcp option maxseg size set rt mtu
	}
}
`

const justIPv6 = `table inet flatnet {
	set own6 {
		type ipv6_addr
		flags interval
	}

	set pods6 {
		type ipv6_addr
		flags interval
		elements = { fd00:244::/32 }
	}

	set nodes6 {
		type ipv6_addr
	}

	set exempt6 {
		type ipv6_addr
		flags interval
		elements = { ::/0 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip6 saddr @own6 oifgroup != 70 ip6 daddr != @pods6 ip6 daddr != @nodes6 ip6 daddr != @exempt6 masquerade fully-random
	}
}
`

const justGuard = `table inet flatnet {
	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifgroup 70 meta nfproto ipv4 fib saddr . iif oif 0 drop
	}
}
`

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"everything", full(), fullText},
		{"nothing", Config{Pods: prefixes("10.244.0.0/16"), Nodes: addresses("172.30.0.1")}, ""},
		{"guard alone", Config{GuardIPv4: true, Own: prefixes("10.244.1.0/24")}, justGuard},
		{"IPv6 alone, everything exempt, one prefix in another", Config{
			IPv6: true,
			Own:  prefixes("10.244.1.0/24"),
			Pods: prefixes("fd00:244:1::/64", "fd00:244::/32", "10.244.1.0/24", "fd00:244::/32"),
			// An address of the other family in IPv6 clothes.
			Nodes:  addresses("::ffff:172.30.0.1"),
			Exempt: prefixes("::/0", "0.0.0.0/0"),
		}, justIPv6},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Plan(c.config).String(); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestPlanKeepsItsArguments(t *testing.T) {
	c := full()
	c.Exempt = append(make([]netip.Prefix, 0, 20), c.Exempt...)
	before := slices.Clone(c.Exempt[:cap(c.Exempt)])
	pods := slices.Clone(c.Pods)
	Plan(c)
	if !slices.Equal(before, c.Exempt[:cap(c.Exempt)]) || !slices.Equal(pods, c.Pods) {
		t.Errorf("Plan changed the caller's slices: %v, %v", c.Exempt[:cap(c.Exempt)], c.Pods)
	}
}

func TestSizes(t *testing.T) {
	got := Plan(full()).Sizes()
	for name, want := range map[string]int{"own4": 1, "pods4": 2, "nodes4": 2, "exempt4": 3, "own6": 1, "pods6": 2, "nodes6": 2, "exempt6": 3} {
		if got[name] != want {
			t.Errorf("%s: %d, want %d", name, got[name], want)
		}
	}
	if len(got) != 8 {
		t.Errorf("%v", got)
	}
}

func TestMain(m *testing.M) { mainOrChild(m) }

// normal is a listing without what nft decides by itself: where it breaks
// lines, in which order it lists, and what goes without saying.
func normal(listing string) string {
	fields := strings.Fields(strings.NewReplacer(",", " ", ";", " ").Replace(listing))
	return strings.Join(fields, " ")
}
