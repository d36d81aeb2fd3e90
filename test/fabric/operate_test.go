package fabric_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// TestSecondFlatnetdWaits: while an update replaces flatnetd, two of them may be
// there. The second waits for the first to end, and takes over.
func TestSecondFlatnetdWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.IPv4)
	s.Start()
	n := s.Node("n1")
	one, two := placePod(t, n, "one"), placePod(t, s.Node("n2"), "two")
	ping := one.ping(t, two, false)
	since := n.Status().Since
	end := n.StartSecond()
	await(t, "the second flatnetd to wait", func() error {
		if !strings.Contains(n.Log(), "waiting for another flatnetd") {
			return fmt.Errorf("log:\n%s", n.Log())
		}
		return nil
	})
	if got := n.Status().Since; got != since {
		t.Errorf("another flatnetd answers, which began at %s", got)
	}
	n.Stop()
	await(t, "the second flatnetd to be ready", func() error {
		status, err := n.TryStatus()
		if err == nil && !status.Ready {
			err = fmt.Errorf("not ready: %s", status.NotReady)
		}
		return err
	})
	must(t, end())
	// One that has to end while it waits ends as well.
	n.StartAgain()
	n.WaitReady()
	end = n.StartSecond()
	await(t, "the third flatnetd to wait", func() error {
		if strings.Count(n.Log(), "waiting for another flatnetd") < 2 {
			return fmt.Errorf("log:\n%s", n.Log())
		}
		return nil
	})
	if err := end(); err == nil {
		t.Error("a flatnetd that never began ended as if it had done its work")
	}
	ping.end(t)
}

// TestSIGTERM: flatnetd ends with status 0 and its last words; what it made stays.
func TestSIGTERM(t *testing.T) {
	s := newSite(t, topologies[2], cluster.Dual)
	s.Start()
	n := s.Node("n1")
	intact := ours(t, n)
	t.Logf("it ended within %s", n.Stop().Round(time.Millisecond))
	if !strings.HasSuffix(n.Log(), `msg="flatnetd ends; what it made stays" node=n1`+"\n") {
		t.Errorf("its last words:\n%s", n.Log())
	}
	if now := ours(t, n); now != intact {
		t.Errorf("the state has changed:%s", differing(intact, now))
	}
	if _, err := n.Flatnetd("status"); err == nil || !strings.Contains(err.Error(), "no flatnetd runs") {
		t.Errorf("status says %v", err)
	}
}

// TestOtherNumbers: VNI, port, MTU and name of the overlay are flags, and may
// change from one run to the next.
func TestOtherNumbers(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start("--fabric", "vxlan")
	one, two := placePod(t, s.Node("n1"), "one"), placePod(t, s.Node("n2"), "two")
	const port, otherVNI, mtu = 8472, 16777215, 1400
	for _, n := range s.Nodes {
		n.Restart("--fabric", "vxlan", "--vxlan-id", fmt.Sprint(otherVNI), "--vxlan-port", fmt.Sprint(port), "--mtu", fmt.Sprint(mtu))
	}
	stop := get(s.segments[0].Capture(port))(t)
	for _, ipv6 := range s.families.Each() {
		one.reaches(t, two, ipv6)
		two.reaches(t, one, ipv6)
	}
	count := 0
	for _, p := range get(stop())(t) {
		if p.Inner != nil && p.VNI == otherVNI {
			count++
		}
	}
	if count < 8 {
		t.Errorf("%d packets in VXLAN with VNI %d to port %d, want 8 at least", count, otherVNI, port)
	}
	if pod := s.Node("n1").Pod("new"); pod.MTU != mtu {
		t.Errorf("a new pod's MTU is %d, want %d", pod.MTU, mtu)
	}
	if text := ours(t, s.Node("n1")); strings.Contains(text, "vxlan id 70 ") || strings.Count(text, "vxlan id") != 1 {
		t.Errorf("the VXLAN devices are\n%s", text)
	}
}

// TestUnderlayMTU: the pods' MTU follows that of the underlay.
func TestUnderlayMTU(t *testing.T) {
	for mode, overhead := range map[string]int{"direct": 0, "vxlan": 50} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, topologies[0], cluster.Dual)
			s.Start("--fabric", mode)
			n := s.Node("n1")
			before := placePod(t, n, "before")
			for i, mtu := range []int{1400, 1492} {
				for _, n := range s.Nodes {
					get(n.Output("ip", "link", "set", "eth0", "mtu", fmt.Sprint(mtu)))(t)
					await(t, "the configuration to have another MTU", func() error {
						want := fmt.Sprintf(`"mtu": %d`, mtu-overhead)
						if text := string(get(os.ReadFile(n.Conflist()))(t)); !strings.Contains(text, want) {
							return fmt.Errorf("%s is not in %s", want, text)
						}
						return nil
					})
				}
				pod, other := placePod(t, n, fmt.Sprint("new", i)), placePod(t, s.Node("n2"), fmt.Sprint("new", i))
				if pod.pod.MTU != mtu-overhead {
					t.Errorf("with %d bytes on the underlay, a new pod has %d", mtu, pod.pod.MTU)
				}
				for _, ipv6 := range s.families.Each() {
					must(t, pod.datagram(other.echos[family(ipv6)], mtu-overhead, timeout))
					// Those from before learn it on the way.
					before.reaches(t, other, ipv6)
					stream := before.stream(t, other, ipv6)
					stream.awaitBytes(t, 64<<10)
					stream.end(t)
				}
			}
			if n.Repairs("") != 0 {
				t.Errorf("a change of the underlay is counted as a repair: %v", n.Metrics())
			}
		})
	}
}

// TestLinkFlap: the kernel forgets routes with the link they use. They come back
// with it.
func TestLinkFlap(t *testing.T) {
	for _, mode := range []string{"direct", "vxlan", "auto"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, topologies[0], cluster.Dual)
			s.Start("--fabric", mode)
			n := s.Node("n1")
			must(t, n.SetSysctl("net/ipv6/conf/eth0/keep_addr_on_down", "1"))
			one, two := placePod(t, n, "one"), placePod(t, s.Node("n2"), "two")
			for range 3 {
				get(n.Output("ip", "link", "set", "eth0", "down"))(t)
				one.cannotReach(t, two, false)
				get(n.Output("ip", "link", "set", "eth0", "up"))(t)
				for _, ipv6 := range s.families.Each() {
					t.Logf("%s is back %s after the link", familyName(ipv6), one.awaitReach(t, two, ipv6).Round(time.Millisecond))
				}
			}
			await(t, "the problems to be over", func() error {
				if problems := n.Status().Problems; len(problems) > 0 {
					return fmt.Errorf("%v", problems)
				}
				return nil
			})
		})
	}
}

// TestUnderlayLosesItsAddress: what needs the node's address waits for it.
func TestUnderlayLosesItsAddress(t *testing.T) {
	for _, mode := range []string{"direct", "vxlan"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, topologies[0], cluster.IPv4)
			s.Start("--fabric", mode)
			n := s.Node("n1")
			one, two := placePod(t, n, "one"), placePod(t, s.Node("n2"), "two")
			get(n.Output("ip", "addr", "flush", "dev", "eth0"))(t)
			await(t, "flatnetd to have a problem", func() error {
				if len(n.Status().Problems) == 0 {
					return fmt.Errorf("none")
				}
				return nil
			})
			must(t, n.AddAddress("eth0", "172.30.0.1/24"))
			one.awaitReach(t, two, false)
			two.awaitReach(t, one, false)
			await(t, "the problems to be over", func() error {
				if problems := n.Status().Problems; len(problems) > 0 {
					return fmt.Errorf("%v", problems)
				}
				return nil
			})
		})
	}
}

// TestDirectWithoutRoutes: on two subnets, direct needs a router that knows the
// pods' networks. What cannot be known from the node is not claimed to be a
// problem there.
func TestDirectWithoutRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[2], cluster.Dual)
	s.Start("--fabric", "direct")
	one, two, three := placePod(t, s.Node("n1"), "one"), placePod(t, s.Node("n2"), "two"), placePod(t, s.Node("n3"), "three")
	for _, ipv6 := range s.families.Each() {
		one.reaches(t, two, ipv6)
		one.cannotReach(t, three, ipv6)
	}
	s.learnPods(t)
	for _, ipv6 := range s.families.Each() {
		one.reaches(t, three, ipv6)
		three.reaches(t, one, ipv6)
	}
}

// TestFabricNone: the routes are somebody else's, flatnetd does the rest.
func TestFabricNone(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start("--fabric", "none")
	one, two := placePod(t, s.Node("n1"), "one"), placePod(t, s.Node("n2"), "two")
	neighbour := placePod(t, s.Node("n1"), "neighbour")
	for _, ipv6 := range s.families.Each() {
		one.cannotReach(t, two, ipv6)
		one.reaches(t, neighbour, ipv6)
	}
	for i, n := range s.Nodes {
		peer := s.Nodes[1-i]
		for f, c := range peer.PodCIDRs {
			must(t, n.AddRoute(c.String(), peer.Addresses[f].String()))
		}
	}
	for _, ipv6 := range s.families.Each() {
		one.reaches(t, two, ipv6)
		two.reaches(t, one, ipv6)
	}
	for _, n := range s.Nodes {
		if problems := n.Status().Problems; len(problems) > 0 {
			t.Errorf("%s has problems: %v", n.Name, problems)
		}
	}
}

// TestOneFamilyOverTheOther: pods of a family that the underlay does not have
// are reached through the overlay, in every mode that has one.
func TestOneFamilyOverTheOther(t *testing.T) {
	for _, mode := range []string{"auto", "vxlan"} {
		for _, f := range []cluster.Families{cluster.IPv4, cluster.IPv6} {
			t.Run(mode+"/over "+f.String(), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, topologies[0], f)
				for _, n := range s.Nodes {
					n.PodCIDRs = []netip.Prefix{
						netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n.Number)), netip.MustParsePrefix(fmt.Sprintf("fd00:244:%d::/64", n.Number)),
					}
				}
				s.Start("--fabric", mode)
				one, two := placePod(t, s.Node("n1"), "one"), placePod(t, s.Node("n2"), "two")
				captured := s.capture(t)
				for _, ipv6 := range cluster.Dual.Each() {
					one.reaches(t, two, ipv6)
					two.reaches(t, one, ipv6)
				}
				plain, overlaid := [2]int{}, [2]int{}
				for _, p := range captured() {
					if p.Inner != nil {
						overlaid[family(p.Inner.Source.Is6())]++
					} else if p.Source == one.address(p.Source.Is6()) || p.Source == two.address(p.Source.Is6()) {
						plain[family(p.Source.Is6())]++
					}
				}
				own, other := family(f == cluster.IPv6), family(f == cluster.IPv4)
				if overlaid[other] == 0 || plain[other] != 0 || (plain[own] > 0) != (mode == "auto") || (overlaid[own] > 0) != (mode == "vxlan") {
					t.Errorf("packets by family: plain %v, overlaid %v", plain, overlaid)
				}
				node := placeNode(t, s.Node("n1"))
				for _, ipv6 := range cluster.Dual.Each() {
					node.reachesRemote(t, map[bool]string{true: "vxlan"}[mode == "vxlan" || family(ipv6) == other], two, ipv6)
				}
			})
		}
	}
}
