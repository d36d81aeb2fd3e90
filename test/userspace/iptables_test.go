package userspace_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/host"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// TestEveryIPTablesLetsPodsPass: the accepts for pods come into a FORWARD chain
// that drops by policy, are found again, and are removed, in both variants.
func TestEveryIPTablesLetsPodsPass(t *testing.T) {
	path := os.Getenv("PATH")
	for _, suite := range suites {
		for _, variant := range []string{"nft", "legacy"} {
			t.Run(suite+"/"+variant, func(t *testing.T) {
				directory := programs(t, suite)
				t.Setenv("PATH", directory+":"+path)
				t.Logf("Debian's %s has iptables %s", suite, version(t, filepath.Join(directory, "iptables-"+variant)))
				n := netlab.Start(t).Node("node")
				pods := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")}
				for _, family := range []string{"iptables", "ip6tables"} {
					if out, err := n.Output(family+"-"+variant, "-P", "FORWARD", "DROP"); err != nil {
						if variant == "legacy" && strings.Contains(err.Error(), "Table does not exist") {
							t.Skipf("this kernel has no tables of iptables' legacy variant: %v", err)
						}
						t.Fatalf("%v\n%s", err, out)
					}
				}
				keeper := &host.Keeper{}
				apply := func() (all []host.Finding) {
					t.Helper()
					must(t, n.Do(func() error {
						for _, f := range keeper.Apply(t.Context(), host.Needs{IPv4: true, IPv6: true, OwnPodCIDRs: pods}) {
							if strings.Contains(f.Object, "FORWARD") {
								all = append(all, f)
							}
						}
						return nil
					}))
					return all
				}
				// marked counts flatnet's rules of both families.
				marked := func() (count int) {
					t.Helper()
					for _, family := range []string{"iptables", "ip6tables"} {
						out, err := n.Output(family+"-"+variant, "-S", "FORWARD")
						must(t, err)
						count += strings.Count(out, `--comment "flatnet: pods" -j ACCEPT`)
					}
					return count
				}
				first := apply()
				if len(first) != 2 || !first[0].Repaired || !first[1].Repaired || marked() != 4 {
					t.Errorf("%d rules, want 4; findings %+v", marked(), first)
				}
				if again := apply(); len(again) > 0 || marked() != 4 {
					t.Errorf("%d rules, want 4; the second time there are findings %+v", marked(), again)
				}
				must(t, n.Do(func() error { return keeper.Remove(t.Context()) }))
				if marked() != 0 {
					t.Errorf("%d rules are left", marked())
				}
			})
		}
	}
}
