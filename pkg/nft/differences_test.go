package nft

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// What somebody has changed of a part of a table is found, and only that.
func TestDifferencesOfAPart(t *testing.T) {
	lab := netlab.Start(t)
	node := lab.Node("node")
	key := func(address string) string { return string(Key(nil).Address(netip.MustParseAddr(address))) }
	id := ID{INet, "flatnet-test"}
	pods := Set{Name: "pods", Type: "type ipv4_addr", Elements: List{{Key: key("10.0.0.1")}, {Key: key("10.0.0.2")}}}
	ways := Set{Name: "ways", Type: "type ipv4_addr : verdict", Elements: List{{Key: key("10.0.0.1"), Value: "goto one"}, {Key: key("10.0.0.2"), Value: "goto two"}}}
	nets := Set{Name: "nets", Type: "type ipv4_addr", Flags: "interval", Elements: Ranges{RangeOf(netip.MustParsePrefix("192.168.0.0/24"))}}
	forward := Chain{Name: "forward", Base: "type filter hook forward priority filter; policy accept;", Rules: []string{"ip daddr vmap @ways"}}
	one := Chain{Name: "one", Rules: []string{"ip saddr @pods accept", "ip saddr @nets accept", "drop"}}
	two := Chain{Name: "two", Rules: []string{"drop"}}
	whole := Table{ID: id, Sets: []Set{pods, ways, nets}, Chains: []Chain{one, two, forward}}
	part := Table{ID: id, Sets: []Set{pods, ways, nets}, Chains: []Chain{one, forward}}
	keys := map[string][]string{"pods": {key("10.0.0.1"), key("10.0.0.9")}, "ways": {key("10.0.0.1"), key("10.0.0.9")}}
	for commands, want := range map[string]string{
		"": "",
		// Of no concern.
		"flush chain inet flatnet-test two":                                                                              "",
		"add chain inet flatnet-test mine; add table inet mine":                                                          "",
		"delete element inet flatnet-test pods { 10.0.0.2 }":                                                             "",
		"add element inet flatnet-test pods { 10.0.0.7 }":                                                                "",
		"delete element inet flatnet-test ways { 10.0.0.2 }":                                                             "",
		"delete table inet flatnet-test":                                                                                 "table is missing",
		"add table inet flatnet-test { flags dormant; }":                                                                 "table has flags",
		"insert rule inet flatnet-test one accept":                                                                       "chain one has other rules",
		"flush chain inet flatnet-test forward":                                                                          "chain forward has other rules",
		"delete chain inet flatnet-test forward":                                                                         "chain forward is missing",
		"delete element inet flatnet-test pods { 10.0.0.1 }":                                                             "set pods lacks 1 of 2: 10.0.0.1",
		"add element inet flatnet-test pods { 10.0.0.9 }":                                                                "set pods has 1 too many: 10.0.0.9",
		"add element inet flatnet-test nets { 192.168.7.0/24 }":                                                          "set nets has 1 too many: 192.168.7.0/24",
		"delete element inet flatnet-test nets { 192.168.0.0/24 }":                                                       "set nets lacks 1 of 1: 192.168.0.0/24",
		"delete element inet flatnet-test ways { 10.0.0.1 }":                                                             "set ways lacks 1 of 2: 10.0.0.1 : goto one",
		"add element inet flatnet-test ways { 10.0.0.9 : goto two }":                                                     "set ways has 1 too many: 10.0.0.9 : goto two",
		"flush chain inet flatnet-test one; flush set inet flatnet-test pods":                                            "set pods lacks 1 of 2: 10.0.0.1; chain one has other rules",
		"delete element inet flatnet-test ways { 10.0.0.1 }; add element inet flatnet-test ways { 10.0.0.1 : goto two }": "set ways lacks 1 of 2: 10.0.0.1 : goto one; set ways has 1 too many: 10.0.0.1 : goto two",
	} {
		t.Run(commands, func(t *testing.T) {
			node.Test(t, func() {
				k := &Keeper{Keeps: []ID{id}}
				defer k.Close()
				if _, err := k.Verify(context.Background(), []Table{whole}); err != nil {
					t.Fatal(err)
				}
				if commands != "" {
					if output, err := node.Output("nft", commands); err != nil {
						t.Fatalf("%v: %s", err, output)
					}
				}
				found, err := k.Differences(part, keys)
				if got := strings.Join(found, "; "); err != nil || got != want {
					t.Errorf("%s, %v; want %s", got, err, want)
				}
				// It has changed nothing, and the keeper repairs all of it.
				again, _ := k.Differences(part, keys)
				if !slices.Equal(found, again) {
					t.Errorf("first %q, then %q", found, again)
				}
			})
		})
	}
}
