package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

func TestObjects(t *testing.T) {
	scope := 253
	for _, c := range []struct {
		name string
		wire Wire
		want string
	}{
		{"IPv4", example("10.244.1.2"), `
shared: sysctl -w net.ipv4.ip_forward=1
shared: ip route add local 169.254.1.1 dev lo proto 70 table local
ip link add veth0 address 02:00:00:00:00:01 mtu 1500 group 70 type veth peer name eth0 address 02:00:00:00:00:02 mtu 1500 netns pod
ip link set veth0 addrgenmode none alias "flatnet net/id/eth0"; sysctl net.ipv4.conf.veth0.forwarding=1 net.ipv4.conf.veth0.rp_filter=1; sysctl net.ipv6.conf.veth0.disable_ipv6=1
ip -n pod link set eth0 addrgenmode none; sysctl net.ipv4.conf.eth0.arp_notify=1
ip link set veth0 up
ip -n pod link set eth0 up
ip route add 10.244.1.2 dev veth0 proto 70
ip ntable change name arp_cache dev veth0 base_reachable 864000000
ip neigh add 10.244.1.2 lladdr 02:00:00:00:00:02 dev veth0 nud reachable extern_learn proto 70
ip -n pod addr add 10.244.1.2/32 dev eth0
ip -n pod neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent proto 70
ip -n pod route add default via 169.254.1.1 dev eth0 proto 70 onlink
ip link show veth0 (until its state is UP)
`},
		{"netkit", func() Wire {
			w := example("10.244.1.2")
			w.Device = kernel.Netkit
			return w
		}(), `
shared: sysctl -w net.ipv4.ip_forward=1
shared: ip route add local 169.254.1.1 dev lo proto 70 table local
ip link add veth0 address 02:00:00:00:00:01 mtu 1500 group 70 type netkit mode l2 peer name eth0 address 02:00:00:00:00:02 mtu 1500 netns pod
ip link set veth0 addrgenmode none alias "flatnet net/id/eth0"; sysctl net.ipv4.conf.veth0.forwarding=1 net.ipv4.conf.veth0.rp_filter=1; sysctl net.ipv6.conf.veth0.disable_ipv6=1
ip -n pod link set eth0 addrgenmode none; sysctl net.ipv4.conf.eth0.arp_notify=1
ip link set veth0 up
ip -n pod link set eth0 up
ip route add 10.244.1.2 dev veth0 proto 70
ip ntable change name arp_cache dev veth0 base_reachable 864000000
ip neigh add 10.244.1.2 lladdr 02:00:00:00:00:02 dev veth0 nud reachable extern_learn proto 70
ip -n pod addr add 10.244.1.2/32 dev eth0
ip -n pod neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent proto 70
ip -n pod route add default via 169.254.1.1 dev eth0 proto 70 onlink
ip link show veth0 (until its state is UP)
`},
		{"IPv6 with a gateway that IPAM names", func() Wire {
			w := example("fd00:244:1::2")
			w.Gateways = []netip.Addr{netip.MustParseAddr("fd00:244:1::1")}
			return w
		}(), `
shared: sysctl -w net.ipv6.conf.all.forwarding=1
shared: ip route add local fd00:244:1::1 dev lo proto 70 table local
ip link add veth0 address 02:00:00:00:00:01 mtu 1500 group 70 type veth peer name eth0 address 02:00:00:00:00:02 mtu 1500 netns pod
ip link set veth0 addrgenmode none alias "flatnet net/id/eth0"; sysctl net.ipv4.conf.veth0.forwarding=1 net.ipv4.conf.veth0.rp_filter=1
ip -n pod link set eth0 addrgenmode none; sysctl net.ipv4.conf.eth0.arp_notify=1 net.ipv6.conf.eth0.ndisc_notify=1
ip link set veth0 up
ip -n pod link set eth0 up
ip route add fd00:244:1::2 dev veth0 proto 70
ip ntable change name ndisc_cache dev veth0 base_reachable 864000000
ip -n pod addr add fe80::ff:fe00:2/64 dev eth0 nodad
ip addr add fe80::1/128 dev veth0 nodad noprefixroute
ip route add fe80::ff:fe00:2 dev veth0 proto 70
ip neigh add fd00:244:1::2 lladdr 02:00:00:00:00:02 dev veth0 nud reachable extern_learn proto 70
ip -n pod addr add fd00:244:1::2/128 dev eth0 nodad noprefixroute
ip -n pod neigh add fe80::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent proto 70
ip -n pod route add -6 default via fe80::1 dev eth0 proto 70 onlink
ip -n pod route add local fd00:244:1::2 dev eth0 proto 70 table local
ip link show veth0 (until its state is UP)
`},
		{"routes of every kind", func() Wire {
			w := example("10.244.1.2")
			w.Routes = []Route{
				{Destination: netip.MustParsePrefix("10.0.0.0/8"), MTU: 1400, AdvMSS: 1360, Priority: 5, Table: 7},
				{Destination: netip.MustParsePrefix("192.168.0.0/16"), Gateway: netip.MustParseAddr("10.244.1.254")},
				{Destination: netip.MustParsePrefix("172.16.0.1/32"), Scope: &scope},
			}
			return w
		}(), `
shared: sysctl -w net.ipv4.ip_forward=1
shared: ip route add local 169.254.1.1 dev lo proto 70 table local
ip link add veth0 address 02:00:00:00:00:01 mtu 1500 group 70 type veth peer name eth0 address 02:00:00:00:00:02 mtu 1500 netns pod
ip link set veth0 addrgenmode none alias "flatnet net/id/eth0"; sysctl net.ipv4.conf.veth0.forwarding=1 net.ipv4.conf.veth0.rp_filter=1; sysctl net.ipv6.conf.veth0.disable_ipv6=1
ip -n pod link set eth0 addrgenmode none; sysctl net.ipv4.conf.eth0.arp_notify=1
ip link set veth0 up
ip -n pod link set eth0 up
ip route add 10.244.1.2 dev veth0 proto 70
ip ntable change name arp_cache dev veth0 base_reachable 864000000
ip neigh add 10.244.1.2 lladdr 02:00:00:00:00:02 dev veth0 nud reachable extern_learn proto 70
ip -n pod addr add 10.244.1.2/32 dev eth0
ip -n pod neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent proto 70
ip -n pod neigh add 10.244.1.254 lladdr 02:00:00:00:00:01 dev eth0 nud permanent proto 70
ip -n pod route add 10.0.0.0/8 via 169.254.1.1 dev eth0 table 7 proto 70 metric 5 onlink mtu 1400 advmss 1360
ip -n pod route add 192.168.0.0/16 via 10.244.1.254 dev eth0 proto 70 onlink
ip -n pod route add 172.16.0.1 dev eth0 proto 70 scope 253
ip link show veth0 (until its state is UP)
`},
		{"held to a bandwidth, with a place for filters", func() Wire {
			w := example("10.244.1.2")
			w.Clsact = true
			w.Bandwidth = &Bandwidth{Ingress: &Rate{BitsPerSecond: 1_000_000, BurstBits: 800_000}, Egress: &Rate{BitsPerSecond: 100_000_000}}
			return w
		}(), `
shared: sysctl -w net.ipv4.ip_forward=1
shared: ip route add local 169.254.1.1 dev lo proto 70 table local
ip link add veth0 address 02:00:00:00:00:01 mtu 1500 group 70 type veth peer name eth0 address 02:00:00:00:00:02 mtu 1500 netns pod
ip link set veth0 addrgenmode none alias "flatnet net/id/eth0"; sysctl net.ipv4.conf.veth0.forwarding=1 net.ipv4.conf.veth0.rp_filter=1; sysctl net.ipv6.conf.veth0.disable_ipv6=1
ip -n pod link set eth0 addrgenmode none; sysctl net.ipv4.conf.eth0.arp_notify=1
tc qdisc replace dev veth0 root handle 1: tbf rate 1000000bit burst 100000b limit 103125b
tc -n pod qdisc replace dev eth0 root handle 1: tbf rate 100000000bit burst 125000b limit 437500b
tc qdisc add dev veth0 clsact
ip link set veth0 up
ip -n pod link set eth0 up
ip route add 10.244.1.2 dev veth0 proto 70
ip ntable change name arp_cache dev veth0 base_reachable 864000000
ip neigh add 10.244.1.2 lladdr 02:00:00:00:00:02 dev veth0 nud reachable extern_learn proto 70
ip -n pod addr add 10.244.1.2/32 dev eth0
ip -n pod neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent proto 70
ip -n pod route add default via 169.254.1.1 dev eth0 proto 70 onlink
ip link show veth0 (until its state is UP)
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, o := range c.wire.Shared() {
				got = append(got, "shared: "+o.String())
			}
			for _, o := range c.wire.Objects() {
				got = append(got, o.String())
			}
			if text := "\n" + strings.Join(got, "\n") + "\n"; text != c.want {
				t.Errorf("got%swant%s", text, c.want)
			}
		})
	}
}

// example is a wire with these addresses and a default route of each family.
func example(addresses ...string) Wire { return exampleNamed("veth0", "eth0", addresses...) }

func exampleNamed(host, pod string, addresses ...string) Wire {
	w := Wire{
		Host:  kernel.End{Name: host, MAC: kernel.MAC{2, 0, 0, 0, 0, 1}},
		Pod:   kernel.End{Name: pod, MAC: kernel.MAC{2, 0, 0, 0, 0, 2}},
		Alias: "flatnet net/id/eth0", MTU: 1500,
	}
	for _, a := range addresses {
		address := netip.MustParseAddr(a)
		w.Addresses = append(w.Addresses, address)
		w.Routes = append(w.Routes, Route{Destination: netip.PrefixFrom(NextHop(address), 0).Masked()})
	}
	return w
}

func TestApplyCheckRemove(t *testing.T) {
	k := &kernel.Recorder{}
	w := example("10.244.1.2", "fd00:244:1::2")
	for _, o := range w.Shared() {
		if err := k.Make(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Apply(k); err != nil {
		t.Fatal(err)
	}
	if err := w.Check(k); err != nil {
		t.Error(err)
	}
	for i, text := range k.Text() {
		var d *kernel.Difference
		if err := w.Check(k.Without(i)); !errors.As(err, &d) {
			t.Errorf("without %q: %v, want a difference", text, err)
		}
	}
	if err := w.Remove(k); err != nil {
		t.Error(err)
	}
	checkOnlyShared(t, k)
}

// checkOnlyShared fails where more is left than what wires share.
func checkOnlyShared(t *testing.T, k *kernel.Recorder) {
	t.Helper()
	for _, text := range sortedWithoutShared(k) {
		t.Errorf("left behind: %s", text)
	}
}

// Every change fails once: the error says so, and nothing is left.
func TestApplyUndoesWhatItMade(t *testing.T) {
	w := example("10.244.1.2", "fd00:244:1::2")
	w.Gateways = []netip.Addr{netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00:244:1::1")}
	injected := errors.New("injected")
	for n := 1; ; n++ {
		calls := 0
		k := &kernel.Recorder{Before: func(string) error {
			if calls++; calls == n {
				return injected
			}
			return nil
		}}
		err := w.Apply(k)
		if err == nil {
			if n != len(w.Objects())+1 {
				t.Errorf("succeeded at the failure of call %d of %d", n, len(w.Objects()))
			}
			return
		}
		var step *StepError
		if !errors.Is(err, injected) || !errors.As(err, &step) || step.Object.String() != w.Objects()[n-1].String() {
			t.Errorf("call %d failing: error %v", n, err)
		}
		checkOnlyShared(t, k)
	}
}

// silent does what it is told but for one call, whose answer does not come.
type silent struct {
	*kernel.Recorder
	calls, at int
}

func (s *silent) Make(object kernel.Object) error {
	err := s.Recorder.Make(object)
	if s.calls++; s.calls == s.at && err == nil {
		err = fmt.Errorf("%s: %w for 20s", object, kernel.ErrUnanswered)
	}
	return err
}

// What the kernel did without an answer is undone as well, the pair too.
func TestApplyUndoesWhatWasNotAnswered(t *testing.T) {
	w := example("10.244.1.2", "fd00:244:1::2")
	for at := 1; at <= len(w.Objects()); at++ {
		k := &silent{Recorder: &kernel.Recorder{}, at: at}
		if err := w.Apply(k); !errors.Is(err, kernel.ErrUnanswered) {
			t.Errorf("call %d without an answer: error %v", at, err)
		}
		checkOnlyShared(t, k.Recorder)
	}
}

// The process dies at every change; the DEL that follows leaves nothing.
func TestRemoveAfterAnInterruptedApply(t *testing.T) {
	w := example("10.244.1.2", "fd00:244:1::2")
	for n := 1; n <= len(w.Objects()); n++ {
		calls := 0
		k := &kernel.Recorder{}
		k.Before = func(string) error {
			if calls++; calls == n {
				panic("killed")
			}
			return nil
		}
		func() {
			defer func() { _ = recover() }()
			_ = w.Apply(k)
		}()
		k.Before = nil
		if err := w.Remove(k); err != nil {
			t.Error(err)
		}
		checkOnlyShared(t, k)
	}
}

// Any history of attachments ends in what a fresh start would have made.
func TestRandomTransitions(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 70))
	k := &kernel.Recorder{}
	attached := map[int]Wire{}
	for range 10000 {
		n := random.IntN(12)
		w, is := attached[n]
		if is {
			if err := w.Remove(k); err != nil {
				t.Fatal(err)
			}
			delete(attached, n)
			continue
		}
		addresses := []string{fmt.Sprintf("10.0.%d.2", n), fmt.Sprintf("fd00::%d:2", n)}[:1+random.IntN(2)]
		w = exampleNamed(fmt.Sprintf("veth%d", n), fmt.Sprintf("net%d", n), addresses...)
		if err := w.Apply(k); err != nil {
			t.Fatal(err)
		}
		attached[n] = w
		if random.IntN(100) > 0 {
			continue
		}
		fresh := &kernel.Recorder{}
		for _, w := range attached {
			if err := w.Apply(fresh); err != nil {
				t.Fatal(err)
			}
		}
		got, want := sortedWithoutShared(k), sortedWithoutShared(fresh)
		if !slices.Equal(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func sortedWithoutShared(k *kernel.Recorder) []string {
	var text []string
	for _, line := range k.Text() {
		if !strings.HasPrefix(line, "sysctl") && !strings.Contains(line, " dev lo ") {
			text = append(text, line)
		}
	}
	slices.Sort(text)
	return text
}
