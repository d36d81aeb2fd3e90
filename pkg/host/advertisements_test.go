package host

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// advertised makes a node that has its default route of a router's advertisement,
// as most IPv6 nodes do, and a pod.
func advertised(t *testing.T) *netlab.Node {
	t.Helper()
	lab := netlab.Start(t)
	lan := lab.Segment("lan")
	node := lab.Node("node", lan.Port("fd00:30::1/64"))
	router := lab.Node("router", lan.Port("fd00:30::ff/64"))
	pod := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0123456789a"}, PeerName: "other0"}
	if err := node.Netlink().LinkAdd(pod); err != nil {
		t.Fatal(err)
	}
	setSysctls(t, node, "net/ipv6/conf/all/forwarding=0", "net/ipv6/conf/eth0/accept_ra=1", "net/ipv6/conf/veth0123456789a/accept_ra=1")
	await(t, "route of an advertisement", func() bool {
		if err := router.Do(advertise); err != nil {
			t.Fatal(err)
		}
		return hasAdvertisedRoute(t, node)
	})
	return node
}

func TestAdvertisedRouteKept(t *testing.T) {
	node := advertised(t)
	needs := Needs{IPv6: true, Underlay: []string{"eth0"}, HostInterfacePrefix: "veth"}
	if err := node.Do(func() error {
		k := &Keeper{}
		wantText(t, "made a router", text(k.Apply(context.Background(), needs)), ""+
			"sysctl net.ipv6.conf.eth0.accept_ra: 1, wanted 2, repaired\n"+
			"sysctl net.ipv6.conf.other0.accept_ra: 1, wanted 2, repaired\n"+
			"sysctl net.ipv6.conf.all.forwarding: 0, wanted 1, repaired\n")
		wantWell(t, k, needs)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !hasAdvertisedRoute(t, node) {
		t.Error("the node lost its default route")
	}
	// A pod must not make itself the node's router.
	wantSysctls(t, node, "net/ipv6/conf/all/forwarding=1", "net/ipv6/conf/veth0123456789a/accept_ra=1")
}

// TestAdvertisedRouteOfOneInterface: all forward, but the underlay was switched
// off, and listens meanwhile.
func TestAdvertisedRouteOfOneInterface(t *testing.T) {
	node := advertised(t)
	setSysctls(t, node, "net/ipv6/conf/eth0/accept_ra=2", "net/ipv6/conf/all/forwarding=1",
		"net/ipv6/conf/eth0/forwarding=0", "net/ipv6/conf/eth0/accept_ra=1")
	needs := Needs{IPv6: true, Underlay: []string{"eth0"}, HostInterfacePrefix: "veth"}
	if err := node.Do(func() error {
		wantText(t, "made a router", text((&Keeper{}).Apply(context.Background(), needs)), ""+
			"sysctl net.ipv6.conf.eth0.accept_ra: 1, wanted 2, repaired\n"+
			"sysctl net.ipv6.conf.eth0.forwarding: 0, wanted 1, repaired\n")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestKernelDropsAdvertisedRoute is what all this is for. Should the kernel stop
// doing it, the test of keeping the route would show nothing.
func TestKernelDropsAdvertisedRoute(t *testing.T) {
	node := advertised(t)
	setSysctls(t, node, "net/ipv6/conf/all/forwarding=1")
	if hasAdvertisedRoute(t, node) {
		t.Error("the kernel keeps the route of an interface that has accept_ra=1")
	}
}

func hasAdvertisedRoute(t *testing.T, node *netlab.Node) bool {
	t.Helper()
	routes, err := node.Netlink().RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if ones, _ := r.Dst.Mask.Size(); ones == 0 {
			return true
		}
	}
	return false
}

// advertise sends one router advertisement (RFC 4861, section 4.2) with a
// lifetime of 1,800 seconds from eth0 of the calling thread's namespace.
func advertise() error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Receivers ignore it with another hop limit: it would be from elsewhere.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	message := make([]byte, 16)
	message[0] = 134
	binary.BigEndian.PutUint16(message[6:], 1800)
	to := &unix.SockaddrInet6{Addr: [16]byte{0xff, 0x02, 15: 1}, ZoneId: uint32(link.Index)}
	return unix.Sendto(fd, message, 0, to)
}

// await asks until the answer is yes.
func await(t *testing.T, what string, ready func() bool) {
	t.Helper()
	if _, err := pace.Await(pace.Far(), func() error {
		if !ready() {
			return errors.New("it is not there")
		}
		return nil
	}); err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}
