package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	vishvananda "github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/pkg/namespace"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/poddevice"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// withNetlink calls f on a thread of a fresh node's namespace, with a kernel
// edge to it and to a fresh pod.
func withNetlink(t *testing.T, f func(n *Netlink, node *netlab.Node, pod *netlab.Namespace)) {
	t.Helper()
	lab := netlab.Start(t)
	node, pod := lab.Node("node"), lab.Pod("pod")
	err := node.Do(func() error {
		inside, err := namespace.Open(pod.Path)
		if err != nil {
			return err
		}
		defer inside.Close()
		n, err := NewNetlink(inside)
		if err != nil {
			return err
		}
		defer n.Close()
		f(n, node, pod)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mac(text string) MAC {
	m, err := net.ParseMAC(text)
	if err != nil {
		panic(err)
	}
	return MAC(m)
}

// oneOfEach is a dual-stack attachment by hand.
func oneOfEach() []Object { return oneOfEachWith(Veth) }

func oneOfEachWith(device Device) []Object {
	host, pod := mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:02")
	linkLocal4, linkLocal6 := netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")
	scope := 200
	return []Object{
		Forwarding{}, Forwarding{IPv6: true}, Answered{Address: netip.MustParseAddr("10.0.0.1")}, Answered{Address: netip.MustParseAddr("fd00::1")},
		Pair{Host: End{"veth0", host}, Pod: End{"eth0", pod}, MTU: 1400, Device: device},
		Settings{Side: Host, Link: "veth0", Alias: "flatnet a/b/c", Guarded: true},
		Settings{Side: Pod, Link: "eth0", Announcing: true, IPv6: true},
		Up{Host, "veth0"}, Up{Pod, "eth0"},
		Address{Side: Pod, Link: "eth0", Prefix: netip.MustParsePrefix("10.0.0.2/32")},
		Address{Side: Pod, Link: "eth0", Prefix: netip.MustParsePrefix("fd00::2/128")},
		Address{Side: Pod, Link: "eth0", Prefix: netip.MustParsePrefix("fe80::2/64")},
		Address{Side: Host, Link: "veth0", Prefix: netip.MustParsePrefix("fe80::1/64")},
		Neighbour{Pod, "eth0", linkLocal4, host, false}, Neighbour{Pod, "eth0", linkLocal6, host, false},
		Neighbour{Host, "veth0", netip.MustParseAddr("10.0.0.2"), pod, false}, Neighbour{Host, "veth0", netip.MustParseAddr("fd00::2"), pod, true},
		Route{Side: Host, Link: "veth0", Destination: netip.MustParsePrefix("10.0.0.2/32")},
		Route{Side: Host, Link: "veth0", Destination: netip.MustParsePrefix("fd00::2/128")},
		Route{Side: Pod, Link: "eth0", Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: linkLocal4, OnLink: true},
		Route{Side: Pod, Link: "eth0", Destination: netip.MustParsePrefix("::/0"), Gateway: linkLocal6, OnLink: true},
		Route{Side: Pod, Link: "eth0", Destination: netip.MustParsePrefix("10.9.0.0/16"), Gateway: linkLocal4, OnLink: true, Table: 1000, Metric: 7, MTU: 1300, AdvMSS: 1200, Scope: &scope},
		Route{Side: Pod, Link: "eth0", Destination: netip.MustParsePrefix("fd09::/64"), Gateway: linkLocal6, OnLink: true, Table: 1000, Metric: 7, MTU: 1300, AdvMSS: 1200},
		Reachable{Pod, "eth0", netip.MustParseAddr("fd00::2")},
		Running{Host, "veth0"}, Running{Pod, "eth0"}, Patience{Host, "veth0", false}, Patience{Host, "veth0", true},
		Shaper{Side: Host, Link: "veth0", Rate: 1_000_000, Burst: 32 << 10, Limit: 35893},
		Shaper{Side: Pod, Link: "eth0", Rate: 10_000_000_000, Burst: 12_500_000, Limit: 43_750_000, Unshaped: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}},
	}
}

func TestMakeInspectRemove(t *testing.T) {
	poddevice.Each(t, func(t *testing.T, device string) { makeInspectRemove(t, oneOfEachWith(Device(device))) })
}

func makeInspectRemove(t *testing.T, all []Object) {
	withNetlink(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
		for _, o := range all {
			if err := n.Make(o); err != nil {
				t.Errorf("making: %v", err)
			}
		}
		for _, o := range all {
			if err := n.Inspect(o); err != nil {
				t.Errorf("inspecting: %v", err)
			}
		}
		// A second look, which knows no indices, sees the same.
		fresh, err := NewNetlink(n.pod)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		for _, o := range all {
			if err := fresh.Inspect(o); err != nil {
				t.Errorf("inspecting anew: %v", err)
			}
		}
		for _, o := range all[9:23] {
			if err := n.Remove(o); err != nil {
				t.Errorf("removing: %v", err)
			}
			var d *Difference
			if err := n.Inspect(o); !errors.As(err, &d) && !mendsItself(o) {
				t.Errorf("after removal: %v, want a difference for %s", err, o)
			}
			if err := n.Remove(o); err != nil {
				t.Errorf("removing twice: %v", err)
			}
		}
		if err := n.Remove(all[4]); err != nil {
			t.Error(err)
		}
		for _, o := range all[4:] {
			if err := n.Remove(o); err != nil {
				t.Errorf("removing what went with its interface: %v", err)
			}
			var d *Difference
			if err := fresh.Inspect(o); !errors.As(err, &d) && !mendsItself(o) {
				t.Errorf("after removal of the pair: %v, want a difference for %s", err, o)
			}
		}
	})
}

// mendsItself reports whether the kernel does without the object, or makes it
// anew, when it is gone.
func mendsItself(o Object) bool {
	neighbour, is := o.(Neighbour)
	_, isPatience := o.(Patience)
	return isPatience || is && neighbour.Amendable
}

// Attachments and the fabric may have the node answer to the same address, and take
// that back, each for itself.
func TestAnsweredByTwo(t *testing.T) {
	withNetlink(t, func(n *Netlink, node *netlab.Node, _ *netlab.Namespace) {
		f, err := NewFabric("flatnet.vx")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		answers := func(a netip.Addr, want bool) {
			t.Helper()
			if local, err := n.IsLocal(a); err != nil || local != want {
				t.Errorf("the node answers to %s: %t, %v", a, local, err)
			}
		}
		for _, text := range []string{"10.0.0.1", "fd00::1"} {
			a := netip.MustParseAddr(text)
			change := func(v Verb) {
				t.Helper()
				if err := f.Apply([]Change{{v, Answered{Address: a, Lasting: true}}})[0]; err != nil {
					t.Fatal(err)
				}
			}
			attach := func() {
				t.Helper()
				if err := n.Make(Answered{Address: a}); err != nil {
					t.Fatal(err)
				}
			}
			leave := func() {
				t.Helper()
				if err := n.RemoveAnswered(); err != nil {
					t.Fatal(err)
				}
			}
			change(Add)
			answers(a, true)
			var d *Difference
			if err := n.Inspect(Answered{Address: a}); !errors.As(err, &d) {
				t.Errorf("the fabric's is taken for that of attachments: %v", err)
			}
			attach()
			attach()
			if err := n.Inspect(Answered{Address: a}); err != nil {
				t.Error(err)
			}
			leave()
			leave()
			answers(a, true)
			if objects, err := f.List(); err != nil || len(objects) != 1 || objects[0] != (Answered{Address: a, Lasting: true}) {
				t.Errorf("the fabric has %v, %v", objects, err)
			}
			attach()
			change(Delete)
			change(Delete)
			answers(a, true)
			if objects, err := f.List(); err != nil || len(objects) > 0 {
				t.Errorf("the fabric has %v, %v", objects, err)
			}
			leave()
			answers(a, false)
		}
	})
}

func TestMakeTwiceIsRefused(t *testing.T) {
	poddevice.Each(t, func(t *testing.T, device string) { makeTwice(t, oneOfEachWith(Device(device))) })
}

func makeTwice(t *testing.T, objects []Object) {
	withNetlink(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
		for _, o := range objects {
			if err := n.Make(o); err != nil {
				t.Fatal(err)
			}
		}
		for _, o := range []Object{objects[4], objects[9], objects[10], objects[17], objects[18], objects[19], objects[20]} {
			if err := n.Make(o); !errors.Is(err, ErrExists) {
				t.Errorf("%s: %v, want ErrExists", o, err)
			}
		}
	})
}

func TestIPv6IsEnabledWhereTheRuntimeDisabledIt(t *testing.T) {
	withNetlink(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
		for _, key := range []string{"all", "default"} {
			if err := pod.SetSysctl("net/ipv6/conf/"+key+"/disable_ipv6", "1"); err != nil {
				t.Fatal(err)
			}
		}
		for _, o := range oneOfEach() {
			if err := n.Make(o); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestErrorsSayWhatWasTried(t *testing.T) {
	withNetlink(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
		err := n.Make(Up{Host, "veth-missing"})
		if err == nil || !strings.Contains(err.Error(), "ip link set veth-missing up") {
			t.Errorf("error %v does not show the command", err)
		}
	})
}

// A pair of one kind is none of the other, and a netkit that lets nothing pass is told from
// one that does.
func TestPairOfAnotherKind(t *testing.T) {
	poddevice.Each(t, func(t *testing.T, device string) {
		withNetlink(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
			pair := oneOfEachWith(Device(device))[4].(Pair)
			if err := n.Make(pair); err != nil {
				t.Fatal(err)
			}
			wants := func(p Pair, want string) {
				t.Helper()
				var d *Difference
				if err := n.Inspect(p); !errors.As(err, &d) || !strings.Contains(err.Error(), want) {
					t.Errorf("inspecting: %v, want %q", err, want)
				}
			}
			other := pair
			if other.Device = Netkit; pair.Device == Netkit {
				other.Device = Veth
			}
			wants(other, fmt.Sprintf("is of type %s, not %s", pair.Device, other.Device))
			if pair.Device != Netkit {
				return
			}
			if err := n.Remove(pair); err != nil {
				t.Fatal(err)
			}
			closed := &vishvananda.Netkit{
				LinkAttrs: vishvananda.LinkAttrs{Name: "veth0"}, Policy: vishvananda.NETKIT_POLICY_BLACKHOLE,
				Scrub: vishvananda.NETKIT_SCRUB_DEFAULT, PeerScrub: vishvananda.NETKIT_SCRUB_DEFAULT,
			}
			closed.SetPeerAttrs(&vishvananda.LinkAttrs{Name: "eth0", Namespace: vishvananda.NsFd(pod.FD())})
			if err := node.Netlink().LinkAdd(closed); err != nil {
				t.Fatal(err)
			}
			wants(pair, "policy blackhole")
		})
	})
}
