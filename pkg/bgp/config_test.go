package bgp

import (
	"strings"
	"testing"
)

const good = `
asn: 64512
peers:
- {name: tor, address: 172.30.0.250, asn: 64600, nodes: "rack in (a, b)"}
- {interface: eth1, asn: 64600, holdTime: 30s}
- {name: wan, address: 172.30.0.251, asn: 64700, announce: {services: [loadBalancer], med: 5}}
announce:
  services: [loadBalancer, external, {addresses: cluster, selector: "expose=yes", loadBalancerClass: flatnet.io/loadbalancer}]
  communities: ["64512:70", "64512:1:2", no-export]
accept:
  podCIDRs: true
  prefixes: [{prefix: 10.0.0.0/8, minLength: 16, maxLength: 24}]
`

func TestParse(t *testing.T) {
	c, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if c.Peers[0].Port != 179 || c.Peers[1].Name != "eth1" || *c.ListenPort != 179 || c.Accept.MaximumRoutes != defaultMaximumRoutes || len(c.Peers[1].families) != 2 {
		t.Errorf("defaults are %+v", c)
	}
}

// Every mistake is an error that names the key.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{good, "", "it is empty"},
		{"asn: 64512\n", "", "asn: is missing"},
		{"asn: 64512\n", "asn: x\n", "key asn"},
		{"asn: 64512\n", "asn: 64512\nasn: 64513\n", `"asn" already set`},
		{"asn: 64512\n", "asn: 64512\nlistenprt: 1\n", `unknown field "listenprt"`},
		{"asn: 64512\n", "asn: 64512\nlistenPort: 70000\n", "listenPort: 70000 is not within 0 to 65535"},
		{"asn: 64512\n", "asn: 64512\nrouterID: fd00::1\n", `routerID: "fd00::1" is not an IPv4 address`},
		{"asn: 64512\n", "asn: 64512\nrestartTime: 2h\n", "restartTime: 2h0m0s is not whole seconds within 1s to 1h8m15s"},
		{"asn: 64512\n", "asn: 64512\nmesh: {}\nlistenPort: 0\n", "listenPort: 0 listens nowhere"},
		{"{name: tor,", "{nme: tor,", `unknown field "peers[0].nme"`},
		{"address: 172.30.0.250", "address: 172.30.0.300", `peers[0].address: "172.30.0.300" is not the address of a machine`},
		{"address: 172.30.0.250", "address: fe80::1", `peers[0].address: "fe80::1" is link-local`},
		{"address: 172.30.0.250, ", "", "peers[0].address: give either address or interface"},
		{"interface: eth1, asn: 64600", "interface: eth1", "peers[1].asn: is missing"},
		{"interface: eth1", "name: tor, interface: eth1", `peers[1].name: "tor" is that of peers[0]`},
		{"rack in (a, b)", "rack in a", "peers[0].nodes: "},
		{"holdTime: 30s", "holdTime: 1s", "peers[1].holdTime: 1s is not whole seconds within 3s"},
		{"holdTime: 30s", "holdTime: soon", `"soon" is not a time`},
		{"holdTime: 30s", "families: [ip4]", `peers[1].families[0]: "ip4" is not ipv4 or ipv6`},
		{"holdTime: 30s", "passwordFile: secret", `peers[1].passwordFile: "secret" is not an absolute path`},
		{"external,", "nodePort,", `announce.services[1]: "nodePort" is not loadBalancer, external or cluster`},
		{"addresses: cluster", "addresses: all", `announce.services[2]: "all" is not loadBalancer, external or cluster`},
		{"addresses: cluster", "selectr: a", `announce.services[2]: unknown field "selectr"`},
		{"addresses: cluster, ", "", `announce.services[2]: "" is not loadBalancer`},
		{"external, {", "70, {", `announce.services[1]: 70 is neither a kind of addresses nor`},
		{"expose=yes", "expose in yes", `announce.services[2].selector: "expose in yes" is not a label selector`},
		{"{services: [loadBalancer], med: 5}", "{services: [x]}", `peers[2].announce.services[0]: "x" is not`},
		{"{services: [loadBalancer], med: 5}", "{communities: [x]}", `peers[2].announce.communities[0]: "x" is not a community`},
		{"{services: [loadBalancer], med: 5}", "{prefixLength: {ipv4: 33}}", `peers[2].announce.prefixLength.ipv4: 33 is not within 8 to 32`},
		{"{services: [loadBalancer], med: 5}", "{localPref: 0}", `peers[2].announce.localPref: 0 is not within 1 to`},
		{"{services: [loadBalancer], med: 5}", "{medd: 5}", `unknown field "peers[2].announce.medd"`},
		{"64512:70", "64512:70000", `announce.communities[0]: "64512:70000": 70000 is not a number of 16 bits`},
		{"10.0.0.0/8", "10.1.0.0/8", "accept.prefixes[0].prefix: \"10.1.0.0/8\" has host bits set"},
		{"maxLength: 24", "maxLength: 12", "accept.prefixes[0].maxLength: 12 is not within 16 to 32"},
		{"peers:", "peers: [] #", "line"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("there is no %q", c.old)
		}
		_, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %s", c.new, c.old, err, c.want)
		}
	}
}
