package loadbalancer

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	c, err := Parse([]byte(`
defaultClass: true
pools:
- name: office
  addresses: [192.0.2.0/28, 192.0.2.100-192.0.2.120, 192.0.2.200, "2001:db8:1::/112"]
  namespaces: [shop]
  serviceSelector: {tier: web}
  autoAssign: false
  layer2:
    interfaces: [eth0, bond0.10]
    withoutLease: answer
- name: rest
  addresses: [198.51.100.0/24]
`))
	if err != nil {
		t.Fatal(err)
	}
	office := c.Pools[0]
	if !c.DefaultClass || office.AutoAssign || office.WithoutLease != Answer || !c.Pools[1].AutoAssign || len(c.Pools[1].Interfaces) > 0 || c.Interfaces()[0] != "bond0.10" {
		t.Errorf("it is %+v", c)
	}
	sizes := []float64{16, 21, 1, 65536}
	for i, r := range office.Ranges {
		if r.Size() != sizes[i] {
			t.Errorf("%s has %v addresses, not %v", r, r.Size(), sizes[i])
		}
	}
	for text, is := range map[string]bool{"192.0.2.0": true, "192.0.2.15": true, "192.0.2.16": false, "192.0.2.100": true, "192.0.2.121": false, "2001:db8:1::ffff": true, "2001:db8:1::1:0": false} {
		if office.Has(addr(text)) != is {
			t.Errorf("%s: not %t", text, is)
		}
	}
	if c, err := Parse(nil); err != nil || len(c.Pools) > 0 {
		t.Errorf("an empty file: %v, %v", c, err)
	}
}

// What is wrong is said with the key, and the value.
func TestParseRefuses(t *testing.T) {
	const good = "pools: [{name: a, addresses: [192.0.2.0/28]}"
	for text, want := range map[string]string{
		"pool: []":                                                                              "line 1: unknown key pool",
		"pools: [{name: a, adresses: []}]":                                                      "unknown key adresses",
		"pools: [{name: a}]":                                                                    "pools[0].addresses: pool a has none",
		"pools: [{addresses: [192.0.2.1]}]":                                                     `pools[0].name: "" is not a name`,
		good + ", {name: a, addresses: [1.2.3.4]}]":                                             `pools[1].name: "a" is the name of pools[0] too`,
		good + ", {name: b, addresses: [192.0.2.15]}]":                                          "pools[1].addresses[0]: 192.0.2.15-192.0.2.15 overlaps with 192.0.2.0-192.0.2.15 of pool a",
		"pools: [{name: a, addresses: [192.0.2.1/24]}]":                                         "pools[0].addresses[0]: \"192.0.2.1/24\" has host bits set: 192.0.2.0/24 is meant",
		"pools: [{name: a, addresses: [192.0.2.9-192.0.2.1]}]":                                  "ends before it begins",
		"pools: [{name: a, addresses: [\"192.0.2.9-fd00::1\"]}]":                                "from one family to the other",
		"pools: [{name: a, addresses: [web]}]":                                                  `pools[0].addresses[0]: "web" is not an address`,
		"pools: [{name: a, addresses: [224.0.0.1]}]":                                            "224.0.0.1 is an address that no Service can have",
		"pools: [{name: a, addresses: [1.2.3.4], layer2: {}}]":                                  "pools[0].layer2.interfaces: none is named",
		"pools: [{name: a, addresses: [1.2.3.4], layer2: {interfaces: [a b]}}]":                 `pools[0].layer2.interfaces[0]: "a b"`,
		"pools: [{name: a, addresses: [1.2.3.4], namespaces: [a/b]}]":                           `pools[0].namespaces[0]: "a/b"`,
		"pools: [{name: a, addresses: [1.2.3.4], layer2: {interfaces: [e], withoutLease: go}}]": `pools[0].layer2.withoutLease: "go" is not together, stop or answer`,
		"pools: 7":                 "cannot unmarshal",
		good + "]\n---\npools: []": "second YAML document",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v\nwant %s", text, err, want)
		}
	}
}
