package conformance

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/vishvananda/netlink"
)

// versions are all that the specification ever had with results.
var versions = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// shape is what a version of the specification knows of.
type shape struct {
	top, iface, ip, route []string
}

// shapes are by version; an interface's mtu came with 1.1.0, but the library
// has the same type for 1.0.0.
var shapes = map[string]shape{
	"0.1.0": oldShape, "0.2.0": oldShape,
	"0.3.0": middleShape, "0.3.1": middleShape, "0.4.0": middleShape,
	"1.0.0": newShape, "1.1.0": newShape,
}

var (
	oldShape = shape{
		top: []string{"cniVersion", "ip4", "ip6", "dns"}, ip: []string{"ip", "gateway", "routes"}, route: []string{"dst", "gw"},
	}
	middleShape = shape{
		top:   []string{"cniVersion", "interfaces", "ips", "routes", "dns"},
		iface: []string{"name", "mac", "sandbox"}, ip: []string{"version", "interface", "address", "gateway"}, route: []string{"dst", "gw"},
	}
	newShape = shape{
		top:   []string{"cniVersion", "interfaces", "ips", "routes", "dns"},
		iface: []string{"name", "mac", "mtu", "sandbox", "socketPath", "pciID"}, ip: []string{"interface", "address", "gateway"},
		route: []string{"dst", "gw", "mtu", "advmss", "priority", "table", "scope"},
	}
)

// knows demands that an object, or each of a list of objects, has only these keys.
func knows(s *stage, what string, value any, keys []string) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			knows(s, what, element, keys)
		}
	case object:
		for key := range maps.Keys(value) {
			if !slices.Contains(keys, key) {
				s.failf("%s of this version has no %q: %v", what, key, value)
			}
		}
	}
}

// shaped demands that the result of ADD is what its version says.
func shaped(version string) func(*stage) {
	return func(s *stage) {
		if !slices.Contains(s.supported(), version) {
			s.skipf("the plugin does not support this version")
		}
		a, res := s.attach("a", s.dual(version))
		if res.CNIVersion != version {
			s.failf("cniVersion %q in the result: %s", res.CNIVersion, res.raw)
		}
		has, top := shapes[version], res.fields()
		knows(s, "a result", top, has.top)
		knows(s, "an interface", top["interfaces"], has.iface)
		knows(s, "an element of ips", top["ips"], has.ip)
		knows(s, "a route", top["routes"], has.route)
		for _, key := range []string{"ip4", "ip6"} {
			if old, ok := top[key].(object); ok {
				knows(s, key, old, has.ip)
				knows(s, "a route", old["routes"], has.route)
			}
		}
		if got := len(res.addresses()); got != 2 {
			s.failf("%d addresses for two ranges: %s", got, res.raw)
		}
		for _, ip := range res.IPs {
			want := ""
			if slices.Contains(has.ip, "version") {
				want = "4"
				if ip.Address.Addr().Is6() {
					want = "6"
				}
			}
			if ip.Version != want {
				s.failf("version %q of %v in ips instead of %q", ip.Version, ip.Address, want)
			}
		}
		read, err := create.CreateFromBytes(res.raw)
		s.expect(err)
		now, err := types100.GetResult(read)
		s.expect(err)
		if len(now.IPs) != 2 || len(now.Routes) == 0 {
			s.failf("the library reads it as %+v: %s", now, res.raw)
		}
		s.works(a, res)
		s.del(a, s.dual(version))
	}
}

// shapeItems are one for each version.
func shapeItems() []item {
	var all []item
	for _, version := range versions {
		all = append(all, item{
			"A8.67-" + version, must, "the result of ADD has the shape of version " + version + ", and the library reads it", shaped(version),
		})
	}
	return all
}

var resultItems = append(shapeItems(), []item{
	{"A8.67", must, "every version that VERSION lists works from ADD to DEL, with that version in the result", func(s *stage) {
		for _, version := range s.supported() {
			conf := s.conf(version)
			a := s.pod("a" + version)
			before := s.look(a)
			if res := s.add(a, conf); res.CNIVersion != version {
				s.failf("cniVersion %q in a result with configuration %s", res.CNIVersion, version)
			}
			s.del(a, conf)
			s.nothingLeft("DEL with "+version, before, a)
		}
	}},
	{"A8.68", must, "interfaces lists all that ADD made on the host and in the pod, with name and MAC", func(s *stage) {
		a := s.pod("a")
		host, pod := links(s.node.Namespace), links(a.space)
		res := s.add(a, s.dual("1.1.0"))
		for _, side := range []struct {
			name, sandbox string
			before, now   map[string]string
		}{
			{"host", "", macs(host), macs(links(s.node.Namespace))},
			{"pod", a.netns, macs(pod), macs(links(a.space))},
		} {
			want := maps.Clone(side.now)
			maps.DeleteFunc(want, func(name, _ string) bool { _, old := side.before[name]; return old })
			got := map[string]string{}
			for _, i := range res.Interfaces {
				if i.Sandbox == side.sandbox {
					got[i.Name] = i.Mac
				}
			}
			if len(want) == 0 || !maps.Equal(got, want) {
				s.failf("interfaces of the %s: the result has %v, the kernel %v", side.name, got, want)
			}
		}
	}},
	{"A8.68b", must, "sandbox is CNI_NETNS word for word", func(s *stage) {
		a := s.pod("a")
		odd := a.via(filepath.Dir(a.netns) + "/../netns//" + filepath.Base(a.netns))
		res := s.add(odd, s.conf("1.1.0"))
		found := false
		for _, i := range res.Interfaces {
			found = found || i.Name == a.ifname && i.Sandbox == odd.netns
		}
		if !found {
			s.failf("no %s with sandbox %s: %s", a.ifname, odd.netns, res.raw)
		}
		s.quiet("CHECK", s.check(odd, s.conf("1.1.0"), res))
		s.del(odd, s.conf("1.1.0"))
	}},
	{"A8.69", must, "every address has the index of the pod's interface, and the gateway of its range", func(s *stage) {
		a, res := s.attach("a", s.dual("1.1.0"))
		gateways := map[bool]netip.Addr{false: netip.MustParseAddr(gateway4), true: netip.MustParseAddr(gateway6)}
		for _, ip := range res.IPs {
			if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(res.Interfaces) || res.Interfaces[*ip.Interface].Name != a.ifname {
				s.failf("%v is not on %s: %s", ip.Address, a.ifname, res.raw)
			}
			if ip.Gateway != gateways[ip.Address.Addr().Is6()] {
				s.failf("gateway %v of %v is not that of the range", ip.Gateway, ip.Address)
			}
			if !slices.ContainsFunc(addressesOn(a.space, a.ifname), func(k netlink.Addr) bool {
				return prefixOf(k.IPNet, ip.Address.Addr()) == ip.Address
			}) {
				s.failf("the pod has %v, the result %v", addressesOn(a.space, a.ifname), ip.Address)
			}
		}
	}},
	{"A8.69b", should, "addresses are in the order of the ranges", func(s *stage) {
		conf := s.dual("1.1.0")
		ranges := slices.Clone(conf["ipam"].(object)["ranges"].([][]object))
		for i, ipv6 := range []bool{false, true} {
			if res := s.add(s.pod(fmt.Sprint(i)), withIPAM(conf, object{"ranges": ranges})); res.IPs[0].Address.Addr().Is6() != ipv6 {
				s.failf("ranges %v: %s", ranges, res.raw)
			}
			slices.Reverse(ranges)
		}
	}},
	{"A8.70", must, "the routes of the result are those that were configured, and the pod has them", func(s *stage) {
		conf := withIPAM(s.dual("1.1.0"), object{"routes": []object{
			{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.0.2.0/24"}, {"dst": "198.51.100.0/24", "gw": gateway4},
		}})
		a, res := s.attach("a", conf)
		for _, want := range []string{"0.0.0.0/0", "::/0", "192.0.2.0/24", "198.51.100.0/24"} {
			dst := netip.MustParsePrefix(want)
			if !slices.ContainsFunc(res.Routes, func(r routeConfig) bool { return r.Dst == dst }) {
				s.failf("%s is not in the result: %s", want, res.raw)
			}
			if len(routesTo(a.space, dst)) == 0 {
				s.failf("%s is not in the pod", want)
			}
		}
		s.quiet("CHECK", s.check(a, conf, res))
	}},
	{"A8.71", must, "dns is left out where there are no DNS settings", func(s *stage) {
		for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
			_, res := s.attach("a"+version, s.conf(version))
			dns, there := res.fields()["dns"]
			// Up to 0.4.0 the library prints an empty object.
			if there && (version >= "1" || len(dns.(object)) > 0) {
				s.failf("dns in a result of %s: %s", version, res.raw)
			}
		}
	}},
	{"A8.74", should, "the interface of CNI_IFNAME, its sandbox and its addresses are found as containerd looks for them", func(s *stage) {
		a, res := s.attach("a", s.dual("0.3.1"))
		read, err := create.CreateFromBytes(res.raw)
		s.expect(err)
		now, err := types100.GetResult(read)
		s.expect(err)
		found := 0
		for _, ip := range now.IPs {
			if ip.Interface != nil && now.Interfaces[*ip.Interface].Name == a.ifname && now.Interfaces[*ip.Interface].Sandbox == a.netns {
				found++
			}
		}
		if found != 2 {
			s.failf("%d addresses on %s: %s", found, a.ifname, res.raw)
		}
	}},
}...)
