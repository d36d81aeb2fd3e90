package fastpath_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// echoing is a connection by which random bytes go there and back all the time.
type echoing struct {
	name   string
	stop   atomic.Bool
	rounds atomic.Int64
	ended  chan error
}

func (s *site) echo(name string, from *cluster.Pod, to netip.AddrPort, seed uint64) *echoing {
	s.t.Helper()
	k := s.talk(from.Namespace, to)
	e := &echoing{name: name, ended: make(chan error, 1)}
	go func() { e.ended <- e.run(k, rand.New(rand.NewPCG(seed, 70))) }()
	return e
}

func (e *echoing) run(k *talk, dice *rand.Rand) error {
	for !e.stop.Load() {
		// Lines, since the other end gives them back so.
		text := make([]byte, 1+dice.IntN([]int{10, 3000, 200_000}[dice.IntN(3)]))
		for i := range text {
			text[i] = byte('a' + dice.IntN(26))
		}
		text = append(text, '\n')
		if err := k.SetDeadline(time.Now().Add(pace.Far())); err != nil {
			return err
		}
		wrote := make(chan error, 1)
		go func() {
			_, err := k.Write(text)
			wrote <- err
		}()
		answer := make([]byte, len(text))
		if _, err := io.ReadFull(k.lines, answer); err != nil {
			return fmt.Errorf("after %d rounds: %w", e.rounds.Load(), err)
		}
		if err := <-wrote; err != nil {
			return err
		}
		if !bytes.Equal(text, answer) {
			return fmt.Errorf("other bytes came back than those sent, after %d rounds", e.rounds.Load())
		}
		e.rounds.Add(1)
	}
	return nil
}

// timeVariable is for how long random changes are made; a while without it.
const timeVariable = "FLATNET_FASTPATH_TIME"

// Whatever changes at random: every byte of every connection arrives, and in the end all of
// them take the fast path.
func TestRandomChanges(t *testing.T) {
	s := newSite(t, cluster.Dual, 2, "--fabric", "auto", "--mtu", "1400")
	n1, n2 := s.Nodes[0], s.Nodes[1]
	web, near, far := s.pod(n1, "web"), s.pod(n1, "near"), s.pod(n2, "far")
	web.Namespace.ServeLines(t, 80)
	var all []*echoing
	for i, ipv6 := range []bool{false, true} {
		to := netip.AddrPortFrom(web.Address(ipv6), 80)
		all = append(all, s.echo(fmt.Sprint("near to ", to), near, to, uint64(i)), s.echo(fmt.Sprint("far to ", to), far, to, uint64(i+10)))
	}
	seed := uint64(time.Now().UnixNano())
	t.Log("seed ", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	run := func(n *cluster.Node, command string) {
		words := strings.Fields(command)
		// What is there already, or not any more, is as good.
		_, _ = n.Output(words[0], words[1:]...)
	}
	links := func(n *cluster.Node) []string {
		if n == n1 {
			return []string{web.HostInterface, near.HostInterface, "eth0", "flatnet.vx"}
		}
		return []string{far.HostInterface, "eth0", "flatnet.vx"}
	}
	var extra *cluster.Pod
	changes := []func(n *cluster.Node, link string){
		func(n *cluster.Node, _ string) { run(n, "nft add table ip other"); run(n, "nft delete table ip other") },
		func(n *cluster.Node, _ string) { run(n, "nft flush ruleset") },
		func(n *cluster.Node, _ string) { run(n, "nft delete table inet flatnet-fastpath") },
		func(n *cluster.Node, link string) { _ = detach(n, link, bothSides...) },
		func(n *cluster.Node, link string) { _ = detach(n, link, ingress) },
		func(n *cluster.Node, link string) { _ = detach(n, link, egress) },
		func(n *cluster.Node, _ string) { run(n, "ip route add 198.51.100.0/24 dev eth0") },
		func(n *cluster.Node, _ string) { run(n, "ip route del 198.51.100.0/24 dev eth0") },
		func(n *cluster.Node, _ string) { run(n, "ip neigh flush dev eth0") },
		func(n *cluster.Node, _ string) { run(n, "ip rule add pref 100 to 198.51.100.1 lookup main") },
		func(n *cluster.Node, _ string) { run(n, "ip rule del pref 100") },
		func(n *cluster.Node, _ string) { n.Kill(); n.StartAgain() },
		func(n *cluster.Node, _ string) { n.Restart(append(s.flags, "--fabric", "vxlan")...) },
		func(n *cluster.Node, _ string) { n.Restart(append(s.flags, "--fabric", "auto")...) },
		func(n *cluster.Node, _ string) { n.Restart(append(s.flags, "--datapath", "kernel")...) },
		func(n *cluster.Node, _ string) {
			if extra != nil {
				extra.Delete()
			}
			extra = n.Pod(fmt.Sprint("extra", dice.Uint32()))
		},
	}
	until, least := time.Now(), 60
	if text := os.Getenv(timeVariable); text != "" {
		d, err := time.ParseDuration(text)
		must(t, err)
		until = until.Add(d)
	}
	count := 0
	for ; count < least || time.Now().Before(until); count++ {
		n := s.Nodes[dice.IntN(2)]
		which, link := dice.IntN(len(changes)), links(n)
		changes[which](n, link[dice.IntN(len(link))])
		for _, e := range all {
			before := e.rounds.Load()
			s.Eventually(fmt.Sprintf("%s to go on after change %d on %s", e.name, which, n.Name), func() error {
				select {
				case err := <-e.ended:
					t.Fatalf("%s ended after change %d on %s: %v", e.name, which, n.Name, err)
				default:
				}
				if e.rounds.Load() < before+2 {
					return fmt.Errorf("%d rounds", e.rounds.Load())
				}
				return nil
			})
		}
	}
	for _, n := range s.Nodes {
		n.Restart(s.flags...)
		n.WaitReady()
		s.inUse(n)
		s.Eventually("all to take the fast path of "+n.Name, func() error {
			f := n.Status().FastPath
			if wanted := map[*cluster.Node]int{n1: 4, n2: 2}[n]; f.Flows != wanted || f.Hits == 0 {
				return fmt.Errorf("%+v", f)
			}
			return nil
		})
	}
	for _, e := range all {
		e.stop.Store(true)
		if err := <-e.ended; err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
		t.Logf("%s: %d rounds", e.name, e.rounds.Load())
	}
	t.Log(count, " changes")
}
