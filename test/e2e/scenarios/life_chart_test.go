package scenarios

import (
	"testing"

	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

func TestChartValues(t *testing.T) {
	for _, c := range []struct{ fabric, datapath, proxy, family, want string }{
		{"auto", "auto", "nftables", "dual", "fabric.mode=auto,fabric.datapath=auto"},
		{"vxlan", "kernel", "none", "ipv6", "fabric.mode=vxlan,fabric.datapath=kernel,services.enabled=true,apiServer.host=fd00:30::1,apiServer.port=6443"},
	} {
		cluster := plan.New(plan.Options{Workers: 1, Subnets: 1, Family: c.family, Proxy: c.proxy, CNI: "flatnet", Fabric: c.fabric, Datapath: c.datapath, Node: "debian"})
		if got := chartValues(cluster); got != c.want {
			t.Errorf("-fabric %s -datapath %s -proxy %s -family %s: %s, want %s", c.fabric, c.datapath, c.proxy, c.family, got, c.want)
		}
	}
}
