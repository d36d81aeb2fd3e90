package conformance

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
)

var addItems = []item{
	{"A3.27", must, "ADD makes CNI_IFNAME in CNI_NETNS, up, with the addresses of the result", func(s *stage) {
		a := s.pod("a").named("net7")
		res := s.add(a, s.dual("1.1.0"))
		link := links(a.space)["net7"]
		if link == nil || link.Attrs().Flags&net.FlagUp == 0 {
			s.failf("net7 in the pod: %+v", link)
		}
		if len(res.addresses()) != 2 {
			s.failf("two ranges, but not two addresses: %s", res.raw)
		}
		for _, address := range res.addresses() {
			if !holds(a.space, "net7", address) {
				s.failf("the pod's interface has no %v: %v", address, addressesOn(a.space, "net7"))
			}
		}
	}},
	{"A3.27b", must, "node and pod reach each other in both families", func(s *stage) {
		a, res := s.attach("a", s.dual("1.1.0"))
		s.works(a, res)
	}},
	{"A3.27c", must, "pods of a node reach each other in both families and see each other's own address", func(s *stage) {
		conf := s.dual("1.1.0")
		a, from := s.attach("a", conf)
		b, to := s.attach("b", conf)
		for _, ipv6 := range []bool{false, true} {
			if source := s.reach(a.space, b.space, s.of(to, ipv6)); source != s.of(from, ipv6).String() {
				s.failf("pod %v saw %s instead of %v", s.of(to, ipv6), source, s.of(from, ipv6))
			}
		}
	}},
	{"A3.27d", must, "the gateway in the result answers the pod's ping in both families", func(s *stage) {
		a, res := s.attach("a", s.dual("1.1.0"))
		for _, ip := range res.IPs {
			if !ip.Gateway.IsValid() {
				s.failf("no gateway for %v: %s", ip.Address, res.raw)
			}
			s.expect(ping(a.space, ip.Address.Addr(), ip.Gateway))
		}
	}},
	{"A3.27e", must, "a pod reaches the world through its node, and the world the pod", func(s *stage) {
		world := s.world()
		a, res := s.attach("a", s.dual("1.1.0"))
		for address, target := range map[netip.Addr]string{s.of(res, false): world4, s.of(res, true): world6} {
			if source := s.reach(a.space, world.Namespace, netip.MustParseAddr(target)); source != address.String() {
				s.failf("the world saw %s instead of %v", source, address)
			}
			s.reach(world.Namespace, a.space, address)
		}
	}},
	{"A3.30", must, "the result of an ADD with prevResult contains the prevResult", func(s *stage) {
		a := s.pod("a")
		previous := object{
			"cniVersion": "1.1.0",
			"interfaces": []object{{"name": "lo", "sandbox": a.netns}},
			"ips":        []object{{"address": "127.0.0.1/8", "interface": 0}},
		}
		res := s.add(a, with(s.conf("1.1.0"), object{"prevResult": previous}))
		found := map[string]bool{}
		for _, i := range res.Interfaces {
			found[i.Name] = true
		}
		for _, ip := range res.IPs {
			if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(res.Interfaces) {
				s.failf("%v is on no interface: %s", ip.Address, res.raw)
			}
			found[ip.Address.Addr().String()+" on "+res.Interfaces[*ip.Interface].Name] = true
		}
		for _, want := range []string{"lo", "127.0.0.1 on lo", a.ifname} {
			if !found[want] {
				s.failf("%s is not in the result: %s", want, res.raw)
			}
		}
	}},
	{"A3.33", must, "sixteen ADDs at once get sixteen addresses, sixteen DELs at once leave nothing", func(s *stage) {
		const n = 16
		conf := s.conf("1.1.0")
		pods := make([]attachment, n)
		for i := range pods {
			pods[i] = s.pod(fmt.Sprint(i))
		}
		before := s.look(pods...)
		all := func(verb string) []reply {
			replies := make([]reply, n)
			var wait sync.WaitGroup
			for i, a := range pods {
				wait.Go(func() { replies[i] = s.exec(verb, a, conf) })
			}
			wait.Wait()
			return replies
		}
		holder := map[netip.Addr]int{}
		for i, r := range all("ADD") {
			res := s.added(r)
			address := s.of(res, false)
			if other, taken := holder[address]; taken {
				s.failf("%v was given to pods %d and %d", address, other, i)
			}
			holder[address] = i
			if !s.reserved(address, pods[i]) {
				s.failf("%v of pod %d is not reserved for it: %v", address, i, s.reservations(network))
			}
			s.works(pods[i], res)
		}
		for _, r := range all("DEL") {
			s.quiet("DEL", r)
		}
		s.nothingLeft("ADD and DEL", before, pods...)
		if left := s.reservations(network); len(left) > 0 {
			s.failf("reservations after all DELs: %v", left)
		}
	}},
	{"A3.34", must, "two interfaces of one container are two attachments", func(s *stage) {
		conf, second := s.dual("1.1.0"), s.second()
		a, res := s.attach("a", conf)
		b := a.named("net1")
		other := s.add(b, second)
		for _, address := range other.addresses() {
			if !holds(a.space, "net1", address) || holds(a.space, "eth0", address) {
				s.failf("%v is not on net1 alone", address)
			}
		}
		s.quiet("CHECK of net1", s.check(b, second, other))
		s.del(b, second)
		s.quiet("CHECK of eth0", s.check(a, conf, res))
		s.works(a, res)
		if links(a.space)["net1"] != nil {
			s.failf("net1 survived its DEL")
		}
	}},
	{"A3.35", must, "the configured mtu is that of both ends", func(s *stage) {
		a, res := s.attach("a", with(s.conf("1.1.0"), object{"mtu": 1342}))
		host, err := res.host()
		s.expect(err)
		for _, link := range []netlink.Link{links(a.space)[a.ifname], links(s.node.Namespace)[host]} {
			if link == nil || link.Attrs().MTU != 1342 {
				s.failf("with mtu 1342: %+v", link)
			}
		}
	}},
}
