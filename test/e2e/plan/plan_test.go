package plan

import (
	"fmt"
	"strings"
	"testing"
)

func TestPlan(t *testing.T) {
	for _, test := range []struct {
		options Options
		want    string
	}{
		{Options{Workers: 2, Family: "dual", Subnets: 2}, `
control-plane subnet0 172.30.0.1/24,fd00:30::1/64 zone-0
worker1 subnet1 172.30.1.2/24,fd00:30:1::2/64 zone-1
worker2 subnet0 172.30.0.3/24,fd00:30::3/64 zone-0
pods 10.244.0.0/16,fd00:244::/48 services 10.96.0.0/16,fd00:96::/112 dns 10.96.0.10,fd00:96::a
https://172.30.0.1:6443`},
		{Options{Workers: 1, Family: "ipv6", Subnets: 1}, `
control-plane subnet0 fd00:30::1/64 zone-0
worker1 subnet0 fd00:30::2/64 zone-1
pods fd00:244::/48 services fd00:96::/112 dns fd00:96::a
https://[fd00:30::1]:6443`},
		{Options{Workers: 1, Family: "ipv4", Subnets: 1}, `
control-plane subnet0 172.30.0.1/24 zone-0
worker1 subnet0 172.30.0.2/24 zone-1
pods 10.244.0.0/16 services 10.96.0.0/16 dns 10.96.0.10
https://172.30.0.1:6443`},
	} {
		c := New(test.options)
		var text strings.Builder
		for _, m := range c.Machines {
			fmt.Fprintf(&text, "\n%s %s %s %s", m.Name, c.Subnets[m.Subnet].Bridge, Join(m.Addresses), c.Zone(m))
		}
		fmt.Fprintf(&text, "\npods %s services %s dns %s\n%s", Join(c.Pods), Join(c.Services), Join(c.DNS), c.APIServer())
		if text.String() != test.want {
			t.Errorf("%+v:%s\nwant:%s", test.options, text.String(), test.want)
		}
	}
}

func TestValidate(t *testing.T) {
	valid := Options{Workers: 3, Family: "dual", Proxy: "nftables", Subnets: 1, CNI: "flatnet", Fabric: "auto", Datapath: "auto", Node: "debian"}
	for _, test := range []struct {
		change func(*Options)
		want   string
	}{
		{func(*Options) {}, ""},
		{func(o *Options) { o.Workers = 0 }, "-workers 0: between 1 and 50 are possible"},
		{func(o *Options) { o.Family = "six" }, "-family six: possible are dual, ipv4, ipv6"},
		{func(o *Options) { o.Proxy = "ipvs" }, "-proxy ipvs: possible are nftables, iptables, none"},
		{func(o *Options) { o.Datapath = "user" }, "-datapath user: possible are auto, ebpf, kernel"},
		{func(o *Options) { o.Subnets = 3 }, "-subnets 3: 1 or 2 are possible"},
		{func(o *Options) { o.Node = "kind" }, ""},
		{func(o *Options) { o.Node = "minikube" }, "-node minikube: possible are debian, kind"},
		{func(o *Options) { o.Subnets, o.Fabric = 2, "vxlan" }, ""},
		{func(o *Options) { o.Subnets, o.Fabric = 2, "direct" }, "-subnets 2 -fabric direct: the router between the subnets knows no routes to pods; use auto or vxlan"},
	} {
		o := valid
		test.change(&o)
		if got := fmt.Sprint(o.Validate()); got != test.want && !(test.want == "" && got == "<nil>") {
			t.Errorf("%+v: %s, want %s", o, got, test.want)
		}
	}
}
