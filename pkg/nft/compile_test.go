package nft

import (
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// The rules are as many kinds as flatnet's tables have.
const tables = `
table ip t {
	map services { type ipv4_addr . inet_proto . inet_service : verdict; }
	map ids { type ipv4_addr . inet_proto . inet_service : mark; }
	map remember { type mark : verdict; }
	set hairpin { type ipv4_addr . ipv4_addr; }
	set own { type ipv4_addr; flags interval; }
	set external { type ipv4_addr . inet_proto . inet_service; }
	map endpoints-tcp { typeof ip daddr . tcp dport . numgen random mod 65536 : ip daddr . tcp dport; }
	map affinity-tcp { typeof ip saddr . ct mark : ip daddr . tcp dport; size 100; flags dynamic,timeout; }
	set sources-tcp { type ipv4_addr . inet_service . ipv4_addr; flags interval; }
	chain leave { }
	chain rules { type nat hook prerouting priority 0; }
	chain leaving { type nat hook postrouting priority 0; }
}
table ip6 t {
	map services { type ipv6_addr . inet_proto . inet_service : verdict; }
	map endpoints-udp { typeof ip6 daddr . udp dport . numgen random mod 65536 : ip6 daddr . udp dport; }
	set verified { type iface_index . ipv6_addr; size 100; flags dynamic,timeout; }
	set external { type ipv6_addr . inet_proto . inet_service; }
	chain rules { type filter hook prerouting priority 0; }
	chain translating { type nat hook prerouting priority 0; }
}
table inet t {
	set own4 { type ipv4_addr; flags interval; }
	set own6 { type ipv6_addr; flags interval; }
	set refused { type ipv4_addr; size 100; flags dynamic; }
	set ended4 { type ipv4_addr . inet_service . ipv4_addr . inet_service . inet_proto; }
	set ended6 { type ipv6_addr . inet_service . ipv6_addr . inet_service . inet_proto; }
	set ports4 { type ipv4_addr . inet_service; }
	map egress4 { type ipv4_addr : verdict; }
	map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
	map any6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
	map one4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map one6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
	set turned4 { type ipv4_addr . ipv4_addr; }
	set turned6 { type ipv6_addr . ipv6_addr; }
	set masked6 { type ipv6_addr . inet_proto . inet_service; }
	chain arriving { type nat hook prerouting priority -90; }
	chain rules { type filter hook forward priority 0; }
	chain entering { type filter hook prerouting priority 0; }
	chain leaving { type nat hook postrouting priority 0; }
}
`

var rules = []struct{ chain, text string }{
	{"ip t rules", "ip daddr . meta l4proto . th dport vmap @services"},
	{"ip t rules", "ip daddr @own drop"},
	{"ip t rules", "meta l4proto tcp dnat ip to ip daddr . tcp dport . numgen random mod 3 map @endpoints-tcp"},
	{"ip t rules", "meta l4proto tcp dnat ip to ip daddr . tcp dport . numgen random mod 3 offset 32768 map @endpoints-tcp"},
	{"ip t rules", "ct mark set ip daddr . meta l4proto . th dport map @ids"},
	{"ip t rules", "meta l4proto tcp dnat ip to ip saddr . ct mark map @affinity-tcp"},
	{"ip t leaving", "meta l4proto tcp update @affinity-tcp { ip saddr . ct mark timeout 10s : ip daddr . tcp dport }"},
	{"ip t rules", "fib saddr type local ip daddr . meta l4proto . th dport vmap @services"},
	{"ip t rules", "meta l4proto tcp ip daddr . tcp dport . ip saddr != @sources-tcp drop"},
	{"ip t leaving", "ip saddr . ip daddr @hairpin masquerade fully-random"},
	{"ip t rules", "ct status dnat ct mark vmap @remember"},
	{"ip t rules", "ct status dnat ct original ip daddr @own goto leave"},
	{"ip t rules", "ct status dnat meta l4proto tcp ct original ip daddr . meta l4proto . ct original proto-dst @external jump leave"},
	{"ip t rules", "ip saddr @own return"},
	{"ip t leaving", "masquerade fully-random"},
	{"ip t leaving", "masquerade"},
	{"ip t rules", "meta l4proto tcp reject with tcp reset"},
	{"ip t rules", "reject"},
	{"ip6 t rules", "reject"},
	{"ip6 t rules", "iifgroup != 70 accept"},
	{"ip6 t rules", "iif . ip6 saddr @verified accept"},
	{"ip6 t rules", "ip6 saddr fe80::/10 accept"},
	{"ip6 t rules", "ip6 saddr :: accept"},
	{"ip6 t rules", "fib saddr . iif oif 0 drop"},
	{"ip6 t rules", "add @verified { iif . ip6 saddr timeout 1m }"},
	{"ip6 t rules", "ip6 daddr . meta l4proto . th dport vmap @services"},
	{"ip6 t translating", "meta l4proto udp dnat ip6 to ip6 daddr . udp dport . numgen random mod 5 map @endpoints-udp"},
	{"ip6 t rules", "ct status dnat meta l4proto udp ct original ip6 daddr . meta l4proto . ct original proto-dst @external accept"},
	{"inet t leaving", "ip saddr @own4 oifgroup != 70 ip daddr != @own4 masquerade fully-random"},
	{"inet t leaving", "ip6 saddr @own6 ip6 daddr != @own6 masquerade fully-random"},
	{"inet t rules", "tcp dport 80-90 accept"},
	{"inet t rules", "ip saddr @own4 udp dport 53 return"},
	{"inet t rules", "ip daddr . sctp dport @ports4 return"},
	{"inet t rules", "add @refused { ip saddr counter }"},
	{"inet t rules", "ip daddr @own4 counter drop"},
	{"inet t rules", "ip saddr != @own4 ip saddr vmap @egress4"},
	{"inet t rules", "ct state established,related accept"},
	{"inet t rules", `limit rate 10/second burst 20 packets log prefix "refused" group 70 snaplen 128`},
	{"inet t rules", "ip saddr . th sport . ip daddr . th dport . meta l4proto @ended4 drop"},
	{"inet t rules", "ip6 saddr . th sport . ip6 daddr . th dport . meta l4proto @ended6 drop"},
	{"inet t rules", "ip saddr vmap @egress4"},
	{"inet t entering", "iifgroup 70 meta nfproto ipv4 fib saddr . iif oif 0 drop"},
	{"inet t rules", "tcp flags syn tcp option maxseg size set rt mtu"},
	{"inet t leaving", "meta l4proto 255 masquerade"},
	{"inet t arriving", "dnat ip to ip daddr . meta l4proto . th dport map @one4"},
	{"inet t arriving", "dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6"},
	{"inet t arriving", "fib daddr type != local return"},
	{"inet t arriving", "fib daddr type local accept"},
	{"inet t entering", "ip daddr 172.30.0.1 udp dport 4789 notrack"},
	{"inet t entering", "ip6 daddr fd00:30::1 udp dport 4789 notrack"},
	{"inet t arriving", "ip6 daddr ::1 return"},
	{"inet t arriving", "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4"},
	{"inet t arriving", "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6"},
	{"inet t leaving", "ip saddr . ip daddr @turned4 masquerade fully-random"},
	{"inet t leaving", "ip6 saddr . ip6 daddr @turned6 masquerade fully-random"},
	{"inet t leaving", "ct status dnat ip6 daddr . meta l4proto . th dport @masked6 masquerade fully-random"},
	{"inet t entering", "iifgroup 70 ip daddr 127.0.0.0/8 drop"},
	{"inet t entering", "iifgroup 70 ip saddr 127.0.0.0/8 drop"},
	{"inet t entering", "ip6 saddr 2001:db8::/32 drop"},
	{"inet t entering", "ip saddr 10.0.0.0/16 drop"},
	{"inet t rules", "ct state established,related accept"},
	{"inet t rules", "ip saddr 172.16.0.0/12 tcp dport 80 drop"},
	{"inet t rules", "reject"},
	{"inet t leaving", "ct status snat,dnat,0x2000 return"},
	{"inet t leaving", "ct state established ct status assured meta mark set meta mark | 0x1000"},
	{"inet t leaving", "ct status assured / assured,snat,dnat,0x2000 meta mark set meta mark | 0x1000 accept"},
	{"inet t leaving", "meta l4proto udp ct status != seen-reply / seen-reply,snat,dnat,0x2000 return"},
	{"inet t leaving", "tcp flags syn / fin,syn,rst return"},
	{"inet t leaving", "meta mark set meta mark & 0xffffefff"},
	{"inet t leaving", "oif 1 accept"},
}

var familyNames = map[string]byte{"ip": unix.NFPROTO_IPV4, "ip6": unix.NFPROTO_IPV6, "inet": unix.NFPROTO_INET}

// TestCompileIsWhatNftMakes compares what is made of each rule with what the kernel
// has after `nft` wrote it.
func TestCompileIsWhatNftMakes(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("the program nft is missing (Debian package nftables)")
	}
	node := netlab.Start(t).Node("node")
	nft := func(script string) {
		t.Helper()
		cmd := exec.Command("nft", "-f", "-")
		var out strings.Builder
		cmd.Stdin, cmd.Stderr = strings.NewReader(script), &out
		if err := node.Run(cmd); err != nil {
			t.Fatalf("%v: %s\n%s", err, &out, script)
		}
	}
	nft(tables)
	node.Test(t, func() {
		s, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, r := range rules {
			words := strings.Fields(r.chain)
			nft("add rule " + r.chain + " " + r.text)
			var found []byte
			err := s.dump(familyNames[words[0]], unix.NFT_MSG_GETRULE, func(a attributes) {
				if a.text(unix.NFTA_RULE_CHAIN) == words[2] {
					found = append([]byte(nil), a[unix.NFTA_RULE_EXPRESSIONS]...)
				}
			}, text(unix.NFTA_RULE_TABLE, words[1]))
			if err != nil {
				t.Fatal(err)
			}
			code, err := compile(familyNames[words[0]], r.text)
			if err != nil {
				t.Error(err)
				continue
			}
			if !same(code, found) {
				var have []string
				for _, e := range netlink.Attributes(found) {
					a := parse(e)
					have = append(have, a.text(1))
				}
				t.Errorf("%s\nwant %v\nhave %v", r.text, code, have)
			}
		}
	})
}

func TestCompileRefuses(t *testing.T) {
	for _, rule := range []string{
		"nonsense", "ip daddr", "ip daddr @", "jump", "ip daddr 300.0.0.1 drop", "ip daddr fd00::1 drop", "ip saddr . ip daddr 10.0.0.1 drop",
		"meta l4proto nothing accept", "dnat to 10.0.0.1", "update affinity { ip saddr timeout 1s }", "update @a { ip saddr timeout soon }",
		"update @a { ip saddr timeout 1s", "numgen random mod x 0 drop", "tcp dport 70000 drop", "ct state odd drop", "accept nonsense", "meta mark set meta mark | one",
	} {
		if code, err := compile(unix.NFPROTO_INET, rule); err == nil {
			t.Errorf("%s: %v", rule, code)
		}
	}
}
