package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// The contenders of the data path.
const (
	bare                 = "bare"
	byHand               = "by hand"
	byHandMasquerade     = "by hand + masquerade"
	withFlatnet          = "flatnet"
	routesOnly           = "flatnet, routes only"
	kernelPath           = "flatnet, --datapath kernel"
	redirectOnly         = "redirect only"
	withBridge           = "bridge"
	withBridgeMasquerade = "bridge + masquerade"
)

// paths are the contenders' ways between two pods. Everybody has a lab with nodes and
// an underlay of his own, all alike.
type paths struct {
	bench *bench
	where place
	labs  []*netlab.Lab
}

func (s *paths) close() error {
	var errs []error
	for _, l := range s.labs {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (s *paths) lab() *netlab.Lab {
	l := netlab.New()
	s.labs = append(s.labs, l)
	return l
}

// all makes the paths of those contenders whose programs are there.
func (s *paths) all(ctx context.Context) ([]path, error) {
	var all []path
	for _, c := range []struct {
		name  string
		build func(context.Context) (path, error)
	}{
		{bare, s.bare},
		{byHand, s.byHand(byHand, false)},
		{byHandMasquerade, s.byHand(byHandMasquerade, true)},
		{withFlatnet, s.flatnet(withFlatnet, "--datapath", "ebpf")},
		{kernelPath, s.flatnet(kernelPath, "--datapath", "kernel")},
		{routesOnly, s.flatnet(routesOnly, "--datapath", "kernel", "--masquerade-ipv4=false", "--masquerade-ipv6=false", "--overlay-nodes=false")},
		{redirectOnly, s.redirected},
		{withBridge, s.bridge(withBridge, false)},
		{withBridgeMasquerade, s.bridge(withBridgeMasquerade, true)},
	} {
		if !s.bench.contenders.MatchString(c.name) {
			continue
		}
		p, err := c.build(ctx)
		if errors.Is(err, errNotThere) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("making the path %s: %w", p.name, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// errNotThere says that a contender does not take part.
var errNotThere = errors.New("not there")

// bare is what the others have below them: two namespaces joined by a veth pair, or
// two nodes on the underlay.
func (s *paths) bare(context.Context) (path, error) {
	lab := s.lab()
	p := path{name: bare, ipv4: netip.MustParseAddr("172.30.0.2"), ipv6: netip.MustParseAddr("fd00:30::2")}
	if s.where != sameNode {
		lan := lab.Segment("lan")
		p.from = lab.Node("n1", lan.Port("172.30.0.1/24", "fd00:30::1/64")).Namespace
		p.to = lab.Node("n2", lan.Port("172.30.0.2/24", "fd00:30::2/64")).Namespace
		return p, nil
	}
	p.from, p.to = lab.Pod("a"), lab.Pod("b")
	err := commands(p.from,
		"ip link add eth0 type veth peer name eth0 netns "+p.to.Name,
		"ip address add 172.30.0.1/24 dev eth0", "ip address add fd00:30::1/64 dev eth0 nodad", "ip link set eth0 up")
	if err != nil {
		return p, err
	}
	return p, commands(p.to,
		"ip address add 172.30.0.2/24 dev eth0", "ip address add fd00:30::2/64 dev eth0 nodad", "ip link set eth0 up")
}

// flatnet has the real flatnetd on each node, and pods by the real plugin, between which a
// policy decides.
func (s *paths) flatnet(name string, flags ...string) func(context.Context) (path, error) {
	return func(context.Context) (path, error) {
		p := path{name: name}
		programs, err := filepath.Abs(s.bench.ours)
		if err != nil {
			return p, err
		}
		if len(s.bench.present([]contender{{name: name, directory: programs, programs: []string{"flatnet", "flatnetd"}}})) == 0 {
			return p, errNotThere
		}
		if s.where != sameNode {
			flags = append(flags, "--fabric", string(s.where))
		}
		c := cluster.New(s.lab(), programs)
		c.OneSegment(cluster.Dual, s.where.nodes())
		node, err := startPoliced(c, []role{{"path", "friend"}}, flags...)
		if err != nil {
			return p, err
		}
		from, to := c.Nodes[0].Prepare(space, "a"), c.Nodes[len(c.Nodes)-1].Prepare(space, "b")
		for _, pod := range []*cluster.Pod{from, to} {
			if err := errors.Join(pod.Add(), node.write(pod.Name, running(pod, "friend")), node.isolates(pod)); err != nil {
				return p, err
			}
		}
		p.from, p.to, p.nodes = from.Namespace, to.Namespace, c.Nodes
		p.ipv4, p.ipv6 = to.Address(false), to.Address(true)
		return p, nil
	}
}

// bridge has pods by the bridge plugin, and across nodes plain routes between the
// bridges. It has no overlay.
func (s *paths) bridge(name string, masquerade bool) func(context.Context) (path, error) {
	return func(ctx context.Context) (path, error) {
		p := path{name: name}
		if s.where == vxlan {
			return p, errNotThere
		}
		place := newSite()
		s.labs = append(s.labs, place.Lab)
		var nodes []*runner
		for number := 1; number <= s.where.nodes(); number++ {
			c := s.bench.bridge(name, families{[]string{podCIDR(number)}, []string{"0.0.0.0/0"}})
			if len(s.bench.present([]contender{c})) == 0 {
				return p, errNotThere
			}
			r, err := s.bench.runner(place, c, nil)
			if err != nil {
				return p, err
			}
			if masquerade {
				if err := masqueradeByHand(r.node.Namespace); err != nil {
					return p, err
				}
			}
			nodes = append(nodes, r)
		}
		last := nodes[len(nodes)-1]
		if s.where == direct {
			if err := errors.Join(nodes[0].node.AddRoute(podCIDR(2), "172.30.0.2"), last.node.AddRoute(podCIDR(1), "172.30.0.1")); err != nil {
				return p, err
			}
		}
		p.from, p.to = place.Pod("a"), place.Pod("b")
		for _, end := range []struct {
			runner *runner
			space  *netlab.Namespace
		}{{nodes[0], p.from}, {last, p.to}} {
			if _, err := end.runner.add(ctx, pod{id: end.space.Name, path: end.space.Path}); err != nil {
				return p, err
			}
		}
		var err error
		p.ipv4, err = addressOf(p.to)
		return p, err
	}
}

// addressOf returns a pod's IPv4 address.
func addressOf(pod *netlab.Namespace) (netip.Addr, error) {
	link, err := pod.Netlink().LinkByName("eth0")
	if err != nil {
		return netip.Addr{}, fmt.Errorf("finding eth0 of %s: %w", pod.Name, err)
	}
	addresses, err := pod.Netlink().AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addresses) != 1 {
		return netip.Addr{}, fmt.Errorf("%s has addresses %v: %w", pod.Name, addresses, err)
	}
	address, _ := netip.AddrFromSlice(addresses[0].IP)
	return address.Unmap(), nil
}
