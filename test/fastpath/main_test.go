// Package fastpath_test sends real traffic through the fast path: pods that the real plugin
// attaches, on nodes that run the real flatnetd.
package fastpath_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func TestMain(m *testing.M) {
	beOlder()
	cluster.Main(m)
}

// onSocket does something with the socket of a connection.
func onSocket(c net.Conn, do func(fd int) error) error {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a cluster on one segment whose flatnetds have the fast path.
type site struct {
	*cluster.Cluster
	t       *testing.T
	segment *cluster.Subnet
	flags   []string
}

// paths are those that packets may take: what a test says of packets has to be true of both.
var paths = []string{"kernel", "ebpf"}

// onBothPaths runs a test by both paths, which its flags are told of.
func onBothPaths(t *testing.T, do func(t *testing.T, datapath string)) {
	for _, datapath := range paths {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			do(t, "--datapath="+datapath)
		})
	}
}

// kernel reports whether the fast path is not to be used.
func (s *site) kernel() bool { return slices.Contains(s.flags, "--datapath=kernel") }

func newSite(t *testing.T, f cluster.Families, nodes int, flags ...string) *site {
	t.Helper()
	s := prepare(t, f, nodes, flags...)
	s.start()
	return s
}

// prepare makes a site whose flatnetds do not run yet.
func prepare(t *testing.T, f cluster.Families, nodes int, flags ...string) *site {
	t.Helper()
	s := &site{Cluster: cluster.Start(t), t: t, flags: append([]string{"--datapath", "ebpf", "--resync", "1h"}, flags...)}
	s.segment = s.OneSegment(f, nodes)
	return s
}

func (s *site) start() {
	s.t.Helper()
	s.Start(s.flags...)
	for _, n := range s.Nodes {
		s.inUse(n)
	}
}

// inUse waits until a node has the fast path.
func (s *site) inUse(n *cluster.Node) {
	s.t.Helper()
	s.Eventually("the fast path on "+n.Name, func() error {
		if f := n.Status().FastPath; f.Datapath != "ebpf" && !s.kernel() {
			return errors.New(f.Because)
		}
		return nil
	})
}

// attached waits until the programs are at a pod's interface.
func (s *site) attached(p *cluster.Pod) {
	s.t.Helper()
	s.Eventually("the programs at "+p.HostInterface, func() error {
		if f := p.Node.Status().FastPath; !slices.Contains(f.Interfaces, p.HostInterface) && !s.kernel() {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
}

// pod attaches a pod and waits for the programs.
func (s *site) pod(n *cluster.Node, name string) *cluster.Pod {
	s.t.Helper()
	p := n.Pod(name)
	s.attached(p)
	return p
}

// talk is a connection that says something now and then.
type talk struct {
	net.Conn
	lines *bufio.Reader
}

func dial(from *netlab.Namespace, source, to netip.AddrPort) (c net.Conn, err error) {
	err = from.Do(func() (err error) {
		d := net.Dialer{Timeout: pace.Far()}
		if source.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(source)
		}
		c, err = d.Dial("tcp", to.String())
		return err
	})
	return c, err
}

func (s *site) talk(from *netlab.Namespace, to netip.AddrPort) *talk {
	s.t.Helper()
	c, err := dial(from, netip.AddrPort{}, to)
	must(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	k := &talk{c, bufio.NewReaderSize(c, 1<<20)}
	must(s.t, k.say("hello"))
	return k
}

// fastTalks are a connection of each family to a pod's lines that take the fast path of nodes.
func (s *site) fastTalks(client, web *cluster.Pod, nodes ...*cluster.Node) (talks []*talk) {
	s.t.Helper()
	for _, ipv6 := range []bool{false, true} {
		k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80))
		s.fast(k, nodes...)
		talks = append(talks, k)
	}
	return talks
}

// brief is a line that is shorter than those that flows are learned with: a packet larger
// than what the stack has let pass is the stack's anyway, and would show nothing.
const brief = "on"

// say waits for the answer to a line.
func (k *talk) say(text string) error { return k.sayWithin(text, pace.Far()) }

func (k *talk) sayWithin(text string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	if err := k.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(k, text); err != nil {
		return err
	}
	answer, err := k.lines.ReadString('\n')
	if err == nil && answer != text+"\n" {
		err = fmt.Errorf("answered %q", answer)
	}
	return err
}

func (k *talk) ends() (local, remote netip.AddrPort) {
	ap := func(a net.Addr) netip.AddrPort {
		p := a.(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return ap(k.LocalAddr()), ap(k.RemoteAddr())
}

// flow returns what a node remembers of a flow between two ends; ok is false where nothing.
func flow(n *cluster.Node, a, b netip.AddrPort) (f agent.RememberedFlow, ok bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), pace.Far())
	defer cancel()
	all, err := agent.AskFlows(ctx, n.StateDir, agent.FlowsWanted{})
	if err != nil {
		return f, false, err
	}
	for _, f := range all.Flows {
		if f.From == a && f.To == b || f.From == b && f.To == a {
			return f, true, nil
		}
	}
	return f, false, nil
}

// takes is how many packets of a flow have taken the fast path on a node, both directions.
func (s *site) takes(n *cluster.Node, a, b netip.AddrPort) (packets uint64) {
	s.t.Helper()
	f, _, err := flow(n, a, b)
	must(s.t, err)
	return f.There.Packets + f.Back.Packets
}

// fast talks until packets of both directions take the fast path on these nodes. Where
// there is none it talks, for about as long as it takes to learn a flow.
func (s *site) fast(k *talk, nodes ...*cluster.Node) {
	s.t.Helper()
	if s.kernel() {
		for range 10 {
			must(s.t, k.say("and so on"))
		}
		return
	}
	a, b := k.ends()
	for _, n := range nodes {
		var before agent.RememberedFlow
		s.Eventually(fmt.Sprintf("%s and %s on the fast path of %s", a, b, n.Name), func() error {
			if err := k.say("and so on"); err != nil {
				s.t.Fatal(err)
			}
			f, ok, err := flow(n, a, b)
			if err != nil || !ok {
				return fmt.Errorf("not remembered: %w", err)
			}
			if before.Since.IsZero() {
				before = f
			}
			if !f.Active || f.There.Packets <= before.There.Packets || f.Back.Packets <= before.Back.Packets {
				return fmt.Errorf("%+v", f)
			}
			return nil
		})
	}
}

// slow talks, and no packet of that takes the fast path on a node.
func (s *site) slow(why string, k *talk, n *cluster.Node) {
	s.t.Helper()
	a, b := k.ends()
	const times = 30
	for range times {
		must(s.t, k.say("and so on"))
	}
	if packets := s.takes(n, a, b); packets > 0 {
		s.t.Errorf("%s: %d packets of %s and %s took the fast path", why, packets, a, b)
	}
}

func bufioReader(c net.Conn) *bufio.Reader { return bufio.NewReaderSize(c, 1<<20) }
