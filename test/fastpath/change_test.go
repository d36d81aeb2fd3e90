package fastpath_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// unanswered is how long nobody is waited for who does not answer.
const unanswered = 300 * time.Millisecond

func describe(t *testing.T, directory string, p *cluster.Pod, labels string) {
	t.Helper()
	var ips []string
	for _, a := range p.Addresses {
		ips = append(ips, fmt.Sprintf("{ip: %q}", a))
	}
	object(t, directory, "pod-"+p.Name, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {namespace: %s, name: %s, labels: {%s}}\nspec: {nodeName: %s}\nstatus: {phase: Running, podIPs: [%s]}\n",
		p.Space, p.Name, labels, p.Node.Name, strings.Join(ips, ", ")))
}

func object(t *testing.T, directory, name, text string) {
	t.Helper()
	path := filepath.Join(directory, name+".yaml")
	must(t, os.WriteFile(path+".new", []byte(text), 0o600))
	must(t, os.Rename(path+".new", path))
}

// A policy acts on the next packet of a connection that takes the fast path, whoever
// sends it; other connections go on, and on the fast path again.
func TestPolicyInTheMiddleOfAConnection(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				s := prepare(t, cluster.Dual, nodes, "--fabric", "direct", "--policies", datapath)
				directory := filepath.Join(s.Directory, "objects")
				must(t, os.Mkdir(directory, 0o700))
				s.flags = append(s.flags, "--policies-dir", directory)
				s.WriteNodes()
				for _, n := range s.Nodes {
					n.Start(append(s.flags, "--policies-file", filepath.Join(n.Directory, "policies.json"))...)
				}
				for _, n := range s.Nodes {
					n.WaitReady()
					s.inUse(n)
				}
				web, good, bad := s.pod(s.Nodes[nodes-1], "web"), s.pod(s.Nodes[0], "good"), s.pod(s.Nodes[0], "bad")
				for _, p := range []*cluster.Pod{web, good, bad} {
					describe(t, directory, p, "app: "+p.Name)
				}
				web.Namespace.ServeLines(t, 80)
				var stays, ends []*talk
				for _, ipv6 := range []bool{false, true} {
					to := netip.AddrPortFrom(web.Address(ipv6), 80)
					stays, ends = append(stays, s.talk(good.Namespace, to)), append(ends, s.talk(bad.Namespace, to))
				}
				for i := range ends {
					s.fast(ends[i], s.Nodes...)
					s.fast(stays[i], s.Nodes...)
				}
				object(t, directory, "deny", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: test, name: deny}\nspec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: good}}}]}]}\n")
				s.Eventually("the end of what is forbidden", func() error {
					for family, address := range map[string]netip.Addr{"4": bad.Address(false), "6": bad.Address(true)} {
						text, err := web.Node.Output("nft", "list", "set", "inet", "flatnet-policy", "ended"+family)
						if err != nil || !strings.Contains(text, address.String()) {
							return fmt.Errorf("%s, %v", text, err)
						}
					}
					return nil
				})
				// From here on, not one packet passes.
				for _, k := range ends {
					a, b := k.ends()
					packets := s.takes(web.Node, a, b)
					if err := k.sayWithin("still?", unanswered); err == nil {
						t.Errorf("%s is answered after the policy is in force", a)
					}
					if now := s.takes(web.Node, a, b); now > packets {
						t.Errorf("%d packets of %s took the fast path after the policy was in force", now-packets, a)
					}
				}
				for _, k := range stays {
					must(t, k.say("goes on"))
					s.fast(k, s.Nodes...)
				}
			})
		})
	}
}

// Who gets the address of a pod that is gone gets its packets as well: a flow that was
// remembered leads nobody astray, and the old interface is not asked.
func TestAddressOfAPodThatIsGone(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				s := prepare(t, cluster.IPv4, nodes, "--fabric", "direct", datapath)
				last := s.Nodes[nodes-1]
				last.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.9.0/29")} // of few addresses
				s.start()
				client := s.pod(s.Nodes[0], "client")
				old := s.pod(last, "old")
				old.Namespace.ServeLines(t, 80)
				at := netip.AddrPortFrom(old.Address(false), 5000)
				receive(t, old.Namespace, at)
				k := s.talk(client.Namespace, netip.AddrPortFrom(old.Address(false), 80))
				d := send(t, client.Namespace, netip.AddrPort{}, at)
				s.fast(k, s.Nodes...)
				s.fastDatagrams(d, s.Nodes...)
				old.Delete()
				var fresh *cluster.Pod
				for i := 0; fresh == nil || fresh.Address(false) != old.Address(false); i++ {
					if fresh != nil {
						fresh.Delete()
					}
					fresh = last.Pod(fmt.Sprint("fresh", i))
				}
				box := receive(t, fresh.Namespace, at)
				fresh.Namespace.ServeLines(t, 80)
				// The old connection is nobody's: the new pod says so.
				_, err := pace.Await(pace.Far(), func() error {
					err := k.sayWithin(brief, unanswered)
					if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
						return nil
					}
					return fmt.Errorf("want a reset, not %w", err)
				})
				must(t, err)
				must(t, d.asks("to whoever has the address"))
				box.until(t, "to whoever has the address")
				s.attached(fresh)
				s.fastDatagrams(d, s.Nodes...)
				s.fast(s.talk(client.Namespace, netip.AddrPortFrom(fresh.Address(false), 80)), s.Nodes...)
			})
		})
	}
}

// Connections between the same two ports, one after the other, that end in every way: by
// FIN of either end, by RST, and by a client that vanishes.
func TestConnectionsBetweenTheSamePorts(t *testing.T) {
	onBothPaths(t, func(t *testing.T, datapath string) {
		s := newSite(t, cluster.IPv4, 2, "--fabric", "direct", datapath)
		web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
		source, to := netip.AddrPortFrom(client.Address(false), 40000), netip.AddrPortFrom(web.Address(false), 80)
		web.Namespace.ServeLines(t, 80)
		must(t, client.SetSysctl("net/ipv4/tcp_tw_reuse", "1"))
		for round := range 30 {
			var c net.Conn
			s.Eventually("a connection by the port of the last one", func() (err error) {
				c, err = dial(client.Namespace, source, to)
				return err
			})
			k := &talk{c, bufioReader(c)}
			for i := range 20 {
				must(t, k.say(fmt.Sprint("round ", round, " line ", i)))
			}
			if round%3 == 0 {
				s.fast(k, s.Nodes...)
			}
			must(t, k.say(strings.Repeat("x", 100_000)))
			tcp := c.(*net.TCPConn)
			switch round % 2 {
			case 0:
				must(t, tcp.SetLinger(0)) // RST
				must(t, tcp.Close())
			case 1:
				// Half closed, the other end may go on, and ends then.
				_, err := fmt.Fprintln(tcp, strings.Repeat("z", 200_000))
				must(t, err)
				must(t, tcp.CloseWrite())
				answer, err := k.lines.ReadString('\n')
				if err != nil || len(answer) != 200_001 {
					t.Fatalf("%d bytes after half a close, %v", len(answer), err)
				}
				// The end that closes last has no TIME-WAIT.
				must(t, tcp.SetLinger(0))
				must(t, tcp.Close())
			}
			for _, n := range s.Nodes {
				s.Eventually("the end of the flow on "+n.Name, func() error {
					if f, ok, err := flow(n, source, to); ok || err != nil {
						return fmt.Errorf("%+v, %v", f, err)
					}
					return nil
				})
			}
		}
	})
}

// A connection that is idle for longer than its flow is remembered goes on, and takes the
// fast path again; meanwhile it is not listed.
func TestIdleConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.IPv4, 1)
	web, client := s.pod(s.Nodes[0], "web"), s.pod(s.Nodes[0], "client")
	web.Namespace.ServeLines(t, 80)
	k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
	s.fast(k, s.Nodes...)
	a, b := k.ends()
	s.Eventually("the flow to be forgotten", func() error {
		if _, ok, err := flow(s.Nodes[0], a, b); ok || err != nil {
			return fmt.Errorf("it is there, %v", err)
		}
		return nil
	})
	must(t, k.say("after a while"))
	s.fast(k, s.Nodes...)
}

// pathMTU is what the client's kernel believes of the way.
func pathMTU(c net.Conn, ipv6 bool) (mtu int, err error) {
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if ipv6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	err = onSocket(c, func(fd int) (err error) {
		mtu, err = unix.GetsockoptInt(fd, level, option)
		return err
	})
	return mtu, err
}

// Where the way gets narrower in the middle of a connection that takes the fast path, the
// sender is told, by the route's MTU and by the interface's, and the connection goes on.
// A wire has the same MTU at both ends: an interface drops what is larger than its own, and
// tells nobody, so that a sender at the other end would never know, whatever the data path.
func TestNarrowerWay(t *testing.T) {
	const narrow = 1300
	for what, narrower := range map[string]func(n, other *cluster.Node) error{
		"route": func(n, _ *cluster.Node) error {
			for family, destination := range map[string]string{"-4": "10.244.2.0/24", "-6": "fd00:244:2::/64"} {
				route, err := n.Output("ip", family, "-details", "route", "show", destination)
				if err != nil {
					return err
				}
				words := strings.Fields(strings.Replace(route, "pref medium", "", 1))
				if _, err := n.Output("ip", append(append([]string{family, "route", "change"}, words...), "mtu", fmt.Sprint(narrow))...); err != nil {
					return err
				}
			}
			return nil
		},
		"interface": func(n, other *cluster.Node) error {
			_, err := n.Output("ip", "link", "set", "eth0", "mtu", fmt.Sprint(narrow))
			_, otherErr := other.Output("ip", "link", "set", "eth0", "mtu", fmt.Sprint(narrow))
			return errors.Join(err, otherErr)
		},
	} {
		t.Run(what, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				s := newSite(t, cluster.Dual, 2, "--fabric", "direct", "--mtu", "1500", datapath)
				web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
				web.Namespace.ServeLines(t, 80)
				talks := map[bool]*talk{}
				for _, ipv6 := range []bool{false, true} {
					talks[ipv6] = s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80))
					s.fast(talks[ipv6], s.Nodes...)
					must(t, talks[ipv6].say(strings.Repeat("x", 300_000)))
				}
				s.Nodes[0].Kill() // or it would repair the route
				must(t, narrower(s.Nodes[0], s.Nodes[1]))
				for ipv6, k := range talks {
					s.Eventually("the sender to know", func() error {
						must(t, k.say(strings.Repeat("y", 30_000)))
						if mtu, err := pathMTU(k.Conn, ipv6); err != nil || mtu != narrow {
							return fmt.Errorf("MTU %d, %v", mtu, err)
						}
						return nil
					})
					must(t, k.say(strings.Repeat("z", 300_000)))
				}
			})
		})
	}
}

// From the underlay to the overlay and back in the middle of a connection.
func TestFromDirectToVXLAN(t *testing.T) {
	s := newSite(t, cluster.Dual, 2, "--fabric", "auto", "--mtu", "1400")
	web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
	web.Namespace.ServeLines(t, 80)
	var talks []*talk
	for _, ipv6 := range []bool{false, true} {
		talks = append(talks, s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80)))
	}
	for _, fabric := range []string{"vxlan", "auto", "vxlan"} {
		for _, n := range s.Nodes {
			n.Restart(append(s.flags, "--fabric", fabric)...)
			for _, k := range talks {
				must(t, k.say("meanwhile"))
			}
		}
		link := "eth0"
		if fabric == "vxlan" {
			link = "flatnet.vx"
		}
		for _, k := range talks {
			s.fast(k, s.Nodes...)
			must(t, k.say(strings.Repeat("x", 100_000)))
			a, b := k.ends()
			for _, n := range s.Nodes {
				s.Eventually("the flow by "+link, func() error {
					must(t, k.say("and so on"))
					f, ok, err := flow(n, a, b)
					if err != nil || !ok || f.FromInterface != link && f.ToInterface != link {
						return fmt.Errorf("%s: by %s and %s, %v", n.Name, f.FromInterface, f.ToInterface, err)
					}
					return nil
				})
			}
		}
	}
}

// Connection tracking, which does not see the middle of a connection, remembers it for as
// long as without the fast path.
func TestConntrackRemembers(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.IPv4, 1)
	n := s.Nodes[0]
	if _, err := os.Stat("/proc/net/nf_conntrack"); err != nil {
		t.Skip("the kernel does not list its connections (CONFIG_NF_CONNTRACK_PROCFS): ", err)
	}
	web, client := s.pod(n, "web"), s.pod(n, "client")
	web.Namespace.ServeLines(t, 80)
	k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
	s.fast(k, n)
	for range 20 {
		must(t, k.say(strings.Repeat("x", 50_000)))
	}
	text, err := n.Output("cat", "/proc/net/nf_conntrack")
	must(t, err)
	a, _ := k.ends()
	found := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if !strings.Contains(line, fmt.Sprintf("sport=%d ", a.Port())) || len(words) < 6 {
			continue
		}
		found = true
		const hour = 3600
		if seconds, err := strconv.Atoi(words[4]); err != nil || seconds < hour || words[5] != "ESTABLISHED" {
			t.Errorf("connection tracking would forget it: %s", line)
		}
	}
	if !found {
		t.Errorf("connection tracking does not know it:\n%s", text)
	}
}
