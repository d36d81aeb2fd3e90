package install

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

func TestConflist(t *testing.T) {
	for _, c := range []struct {
		name    string
		network Network
		want    string
		pool    string // as the plugin reads it
	}{
		{
			name:    "IPv4",
			network: Network{Name: "flatnet", PodCIDRs: prefixes("10.244.1.0/24"), MTU: 1500, StateDir: "/run/flatnet"},
			want: `{
  "cniVersion": "1.0.0",
  "name": "flatnet",
  "plugins": [
    {
      "type": "flatnet",
      "mtu": 1500,
      "logLevel": "warn",
      "ipam": {
        "ranges": [
          [
            {
              "subnet": "10.244.1.0/24"
            }
          ]
        ]
      },
      "capabilities": {
        "bandwidth": true,
        "portMappings": true
      }
    }
  ]
}
`,
			pool: "10.244.1.1-10.244.1.254",
		},
		{
			name:    "IPv6, MTU left to the plugin, netkit, state elsewhere, policies, a place for filters",
			network: Network{Name: "flatnet", PodCIDRs: prefixes("fd00:244:1::/64"), StateDir: "/run/other", PodDevice: kernel.Netkit, Policies: "/var/lib/flatnet/policies.json", Clsact: true},
			want: `{
  "cniVersion": "1.0.0",
  "name": "flatnet",
  "plugins": [
    {
      "type": "flatnet",
      "podDevice": "netkit",
      "stateDir": "/run/other",
      "policies": "/var/lib/flatnet/policies.json",
      "clsact": true,
      "logLevel": "warn",
      "ipam": {
        "ranges": [
          [
            {
              "subnet": "fd00:244:1::/64"
            }
          ]
        ]
      },
      "capabilities": {
        "bandwidth": true,
        "portMappings": true
      }
    }
  ]
}
`,
			pool: "fd00:244:1::1-fd00:244:1:0:ffff:ffff:ffff:ffff",
		},
		{
			name:    "dual stack, several podCIDRs, IPv6 first",
			network: Network{Name: "flatnet", MTU: 1430, PodCIDRs: prefixes("fd00:244:1::/64", "10.244.1.0/24", "10.244.9.0/25", "fd00:244:9::/64")},
			want: `{
  "cniVersion": "1.0.0",
  "name": "flatnet",
  "plugins": [
    {
      "type": "flatnet",
      "mtu": 1430,
      "logLevel": "warn",
      "ipam": {
        "ranges": [
          [
            {
              "subnet": "fd00:244:1::/64"
            },
            {
              "subnet": "fd00:244:9::/64"
            }
          ],
          [
            {
              "subnet": "10.244.1.0/24"
            },
            {
              "subnet": "10.244.9.0/25"
            }
          ]
        ]
      },
      "capabilities": {
        "bandwidth": true,
        "portMappings": true
      }
    }
  ]
}
`,
			pool: "fd00:244:1::1-fd00:244:1:0:ffff:ffff:ffff:ffff,fd00:244:9::1-fd00:244:9:0:ffff:ffff:ffff:ffff; " +
				"10.244.1.1-10.244.1.254,10.244.9.1-10.244.9.126",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := conflistOf(t, c.network)
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			list, err := libcni.NetworkConfFromBytes([]byte(got))
			if err != nil {
				t.Fatal(err)
			}
			read, _, err := netconf.Parse(&cni.Request{
				Command: "ADD", Version: list.CNIVersion, Network: list.Name, Config: list.Plugins[0].Bytes,
			})
			if err != nil {
				t.Fatal(err)
			}
			wantText(t, "ranges", read.IPAM.Pool.String(), c.pool)
			if read.MTU != c.network.MTU || read.IPMasq {
				t.Errorf("mtu %d, ipMasq %v; want %d, false", read.MTU, read.IPMasq, c.network.MTU)
			}
		})
	}
}

// What every ADD would refuse is refused here, and the field is named.
func TestConflistRefuses(t *testing.T) {
	for _, c := range []struct {
		network Network
		want    []string
	}{
		{Network{PodCIDRs: prefixes("10.244.1.0/24")}, []string{"name"}},
		{Network{Name: "a/b", PodCIDRs: prefixes("10.244.1.0/24")}, []string{"name", "a/b"}},
		{Network{Name: "flatnet"}, []string{"flatnet", "no podCIDRs"}},
		{Network{Name: "flatnet", PodCIDRs: prefixes("10.244.0.0/24", "10.244.1.3/24")}, []string{"podCIDRs[1]", "10.244.1.3/24"}},
		{Network{Name: "flatnet", PodCIDRs: prefixes("::ffff:10.244.1.0/120")}, []string{"podCIDRs[0]"}},
		{Network{Name: "flatnet", PodCIDRs: append(prefixes("10.244.1.0/24"), prefixes("10.244.1.128/25")...)}, []string{"overlap"}},
		{Network{Name: "flatnet", MTU: 67, PodCIDRs: prefixes("10.244.1.0/24")}, []string{"mtu", "67"}},
		{Network{Name: "flatnet", MTU: -1, PodCIDRs: prefixes("10.244.1.0/24")}, []string{"mtu", "-1"}},
		{Network{Name: "flatnet", Policies: "policies.json", PodCIDRs: prefixes("10.244.1.0/24")}, []string{"policies", "policies.json"}},
		{Network{Name: "flatnet", StateDir: "run", PodCIDRs: prefixes("10.244.1.0/24")}, []string{"stateDir", "run"}},
	} {
		text, err := Conflist(c.network)
		if err == nil {
			t.Errorf("%+v gives\n%s", c.network, text)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		}
	}
}
