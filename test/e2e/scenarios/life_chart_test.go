package scenarios

import (
	"testing"

	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

func TestChartValues(t *testing.T) {
	for _, c := range []struct{ fabric, proxy, family, want string }{
		{"auto", "nftables", "dual", "fabric.mode=auto"},
		{"vxlan", "none", "ipv6", "fabric.mode=vxlan,services.enabled=true,apiServer.host=fd00:30::1,apiServer.port=6443"},
	} {
		cluster := plan.New(plan.Options{Workers: 1, Subnets: 1, Family: c.family, Proxy: c.proxy, CNI: "flatnet", Fabric: c.fabric, Datapath: "auto", Node: "debian"})
		if got := chartValues(cluster); got != c.want {
			t.Errorf("-fabric %s -proxy %s -family %s: %s, want %s", c.fabric, c.proxy, c.family, got, c.want)
		}
	}
}
