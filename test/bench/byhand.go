package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// The networks of node N's pods are those of test/cluster.
func podCIDR(node int) string { return fmt.Sprintf("10.244.%d.0/24", node) }

// The interfaces' addresses are the same everywhere: each link has two ends only.
const (
	hostEnd = "02:70:00:00:00:01"
	podEnd  = "02:70:00:00:00:02"
)

// byHand makes with ip and bridge what flatnet makes, and none of what it makes
// besides: no check of sources, no nftables.
func (s *paths) byHand(name string, masquerade bool) func(context.Context) (path, error) {
	return func(context.Context) (path, error) {
		p, nodes, err := s.makeByHand(name)
		for _, node := range nodes {
			if err == nil && masquerade {
				err = masqueradeByHand(node.Namespace)
			}
		}
		return p, err
	}
}

// makeByHand makes it on one node or on two, which it returns.
func (s *paths) makeByHand(name string) (p path, nodes []*netlab.Node, err error) {
	p.name = name
	lab := s.lab()
	lan := lab.Segment("lan")
	for number := 1; number <= s.where.nodes(); number++ {
		node := lab.Router(fmt.Sprint("n", number), lan.Port(
			fmt.Sprintf("172.30.0.%d/24", number), fmt.Sprintf("fd00:30::%d/64", number)))
		nodes = append(nodes, node)
		switch peer := 3 - number; s.where {
		case direct:
			err = commands(node.Namespace,
				fmt.Sprintf("ip route add %s via 172.30.0.%d", podCIDR(peer), peer),
				fmt.Sprintf("ip route add fd00:244:%d::/64 via fd00:30::%d", peer, peer))
		case vxlan:
			err = tunnelByHand(node.Namespace, number, peer)
		}
		if err != nil {
			return p, nil, err
		}
	}
	mtu := 1500
	if s.where == vxlan {
		mtu = 1450
	}
	p.from, p.to = lab.Pod("a"), lab.Pod("b")
	if _, _, err := podByHand(nodes[0].Namespace, p.from, 1, 2, mtu); err != nil {
		return p, nil, err
	}
	p.ipv4, p.ipv6, err = podByHand(nodes[len(nodes)-1].Namespace, p.to, len(nodes), 3, mtu)
	return p, nodes, err
}

// podByHand gives a pod the host's address of that number on the node of that number.
func podByHand(node, pod *netlab.Namespace, number, host, mtu int) (ipv4, ipv6 netip.Addr, err error) {
	ipv4 = netip.AddrFrom4([4]byte{10, 244, byte(number), byte(host)})
	ipv6 = netip.MustParseAddr(fmt.Sprintf("fd00:244:%d::%d", number, host))
	veth := fmt.Sprint("veth", host)
	err = commands(node,
		fmt.Sprintf("ip link add %s mtu %d address %s type veth peer name eth0 mtu %d address %s netns %s", veth, mtu, hostEnd, mtu, podEnd, pod.Name),
		"ip link set "+veth+" up",
		fmt.Sprintf("ip route add %s dev %s", ipv4, veth),
		fmt.Sprintf("ip route add %s dev %s", ipv6, veth),
		fmt.Sprintf("ip neighbour add %s lladdr %s dev %s nud permanent", ipv4, podEnd, veth),
		fmt.Sprintf("ip neighbour add %s lladdr %s dev %s nud permanent", ipv6, podEnd, veth),
	)
	if err != nil {
		return ipv4, ipv6, err
	}
	return ipv4, ipv6, commands(pod,
		"ip link set eth0 up",
		fmt.Sprintf("ip address add %s dev eth0", ipv4),
		fmt.Sprintf("ip address add %s dev eth0 nodad", ipv6),
		fmt.Sprintf("ip neighbour add 169.254.1.1 lladdr %s dev eth0 nud permanent", hostEnd),
		fmt.Sprintf("ip neighbour add fe80::1 lladdr %s dev eth0 nud permanent", hostEnd),
		"ip route add default via 169.254.1.1 dev eth0 onlink",
		"ip route add default via fe80::1 dev eth0 onlink",
	)
}

// tunnelByHand joins a node with its peer over VXLAN with permanent entries.
func tunnelByHand(node *netlab.Namespace, number, peer int) error {
	mac := func(number int) string { return fmt.Sprintf("02:70:00:00:01:%02d", number) }
	hop4, hop6 := fmt.Sprintf("10.244.%d.0", peer), fmt.Sprintf("fd00:244:%d::", peer)
	return commands(node,
		fmt.Sprintf("ip link add vx mtu 1450 address %s type vxlan id 70 local 172.30.0.%d dstport 4789 nolearning noudpcsum", mac(number), number),
		"ip link set vx addrgenmode none",
		"ip link set vx up",
		fmt.Sprintf("bridge fdb add %s dev vx dst 172.30.0.%d self permanent", mac(peer), peer),
		fmt.Sprintf("ip neighbour add %s lladdr %s dev vx nud permanent", hop4, mac(peer)),
		fmt.Sprintf("ip neighbour add %s lladdr %s dev vx nud permanent", hop6, mac(peer)),
		fmt.Sprintf("ip route add %s/24 via %s dev vx onlink", hop4, hop4),
		fmt.Sprintf("ip route add %s/64 via %s dev vx onlink", hop6, hop6),
	)
}

// masqueradeByHand is the one rule a family that every other simple network has. With
// it the kernel tracks connections.
func masqueradeByHand(node *netlab.Namespace) error {
	const ruleset = `table %[1]s byhand {
		chain postrouting {
			type nat hook postrouting priority srcnat
			%[1]s saddr %[2]s %[1]s daddr != %[2]s masquerade
		}
	}`
	for _, f := range []struct{ family, pods string }{{"ip", "10.244.0.0/16"}, {"ip6", "fd00:244::/32"}} {
		if _, err := node.Output("nft", fmt.Sprintf(ruleset, f.family, f.pods)); err != nil {
			return err
		}
	}
	return nil
}

// commands runs programs in a namespace, each with the words of a line.
func commands(space *netlab.Namespace, lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if _, err := space.Output(words[0], words[1:]...); err != nil {
			return err
		}
	}
	return nil
}
