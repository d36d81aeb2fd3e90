// Package underlay makes the network between the machines of a cluster: a
// bridge for each subnet in a network namespace that is also the router
// between them, and a veth pair to each machine.
package underlay

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/e2e/machine"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

// port is the name of a machine's interface, as on a machine with one.
const port = "eth0"

// Router makes the bridges with their addresses in the network namespace of
// the process, and lets it forward. Equivalent to: `ip link add subnet0 type
// bridge; ip address add 172.30.0.254/24 dev subnet0; sysctl -w net.ipv4.ip_forward=1`, for each.
func Router(pid int, subnets []plan.Subnet) error {
	return inside(pid, func(links *netlink.Handle) error {
		if err := up(links, "lo"); err != nil {
			return err
		}
		for key, value := range map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/default/accept_dad": "0",
		} {
			if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644); err != nil {
				return fmt.Errorf("setting %s of the router: %w", key, err)
			}
		}
		for _, subnet := range subnets {
			// Without an address of its own, a bridge changes it with its ports.
			attributes := netlink.LinkAttrs{Name: subnet.Bridge, HardwareAddr: hardware(subnet.Bridge)}
			if err := links.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
				return fmt.Errorf("making bridge %s: %w", subnet.Bridge, err)
			}
			if err := address(links, subnet.Bridge, subnet.Gateways); err != nil {
				return err
			}
		}
		return nil
	})
}

// Connect makes a machine's interface eth0, connects it to its subnet, and
// gives it addresses and default routes. A leftover of a machine of that name
// has gone with its namespace. Equivalent to: `ip link add NAME master subnet0 type veth peer name
// eth0 netns PID`, and in there `ip address add …; ip route add default via …`.
func Connect(router, pid int, m plan.Machine, subnet plan.Subnet) error {
	// The veth pair of a machine that was killed goes when its namespace is
	// destroyed, which is not at once.
	name := m.Name
	err := inside(router, func(links *netlink.Handle) error {
		if old, err := links.LinkByName(name); err == nil {
			if err := links.LinkDel(old); err != nil {
				return fmt.Errorf("removing what is left of interface %s: %w", name, err)
			}
		}
		bridge, err := links.LinkByName(subnet.Bridge)
		if err != nil {
			return fmt.Errorf("finding bridge %s: %w", subnet.Bridge, err)
		}
		attributes := netlink.NewLinkAttrs()
		attributes.Name, attributes.MasterIndex = name, bridge.Attrs().Index
		veth := &netlink.Veth{LinkAttrs: attributes, PeerName: port, PeerNamespace: netlink.NsPid(pid), PeerHardwareAddr: hardware(name)}
		if err := links.LinkAdd(veth); err != nil {
			return fmt.Errorf("making interface of %s: %w", name, err)
		}
		return up(links, name)
	})
	if err != nil {
		return err
	}
	return inside(pid, func(links *netlink.Handle) error {
		if err := up(links, "lo"); err != nil {
			return err
		}
		if err := address(links, port, m.Addresses); err != nil {
			return err
		}
		for _, gateway := range subnet.Gateways {
			if err := links.RouteAdd(&netlink.Route{Gw: net.IP(gateway.Addr().AsSlice())}); err != nil {
				return fmt.Errorf("adding default route of %s via %s: %w", name, gateway.Addr(), err)
			}
		}
		return nil
	})
}

// Route adds a route to a machine, or changes it.
// Equivalent to: `ip route replace DESTINATION via GATEWAY`.
func Route(pid int, destination netip.Prefix, gateway netip.Addr) error {
	return inside(pid, func(links *netlink.Handle) error {
		err := links.RouteReplace(&netlink.Route{Dst: network(destination), Gw: net.IP(gateway.AsSlice())})
		if err != nil {
			return fmt.Errorf("adding route to %s via %s: %w", destination, gateway, err)
		}
		return nil
	})
}

// hardware is a machine's MAC address. It keeps it when it is started anew, as a
// real one does: others remember it.
func hardware(name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(name))
	sum[0] = sum[0]&^1 | 2 // of one interface, and administered locally
	return sum[:6]
}

func up(links *netlink.Handle, name string) error {
	link, err := links.LinkByName(name)
	if err == nil {
		err = links.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bringing up %s: %w", name, err)
	}
	return nil
}

// address gives an interface addresses, without duplicate address detection:
// they can be used at once.
func address(links *netlink.Handle, name string, addresses []netip.Prefix) error {
	if err := up(links, name); err != nil {
		return err
	}
	link, err := links.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		flags := 0
		if a.Addr().Is6() {
			flags = unix.IFA_F_NODAD
		}
		if err := links.AddrAdd(link, &netlink.Addr{IPNet: network(a), Flags: flags}); err != nil {
			return fmt.Errorf("adding address %s to %s: %w", a, name, err)
		}
	}
	return nil
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// inside calls f on a thread in the network namespace of a process; the thread
// ends with it.
func inside(pid int, f func(links *netlink.Handle) error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result <- func() error {
			namespace, err := netns.GetFromPath(machine.Namespace(pid, "net"))
			if err != nil {
				return fmt.Errorf("opening network namespace of process %d: %w", pid, err)
			}
			defer namespace.Close()
			if err := netns.Set(namespace); err != nil {
				return fmt.Errorf("entering network namespace of process %d: %w", pid, err)
			}
			links, err := netlink.NewHandle()
			if err != nil {
				return fmt.Errorf("opening netlink: %w", err)
			}
			defer links.Close()
			return f(links)
		}()
	}()
	return <-result
}
