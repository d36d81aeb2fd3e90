package fastpath_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

// timeVariable is for how long random changes are made, some twenty seconds without it;
// seedVariable has the choice of changes be that of an earlier run.
const (
	timeVariable = "FLATNET_FASTPATH_TIME"
	seedVariable = "FLATNET_FASTPATH_SEED"
)

func chosenSeed(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("%s=%d", seedVariable, seed)
	return seed
}

// change is something that may happen to a node.
type change struct {
	what string
	do   func(n *cluster.Node)
}

// turmoil are the changes of a random history.
type turmoil struct {
	*site
	dice    *rand.Rand
	objects string // a directory
	pods    []*cluster.Pod
	extra   []*cluster.Pod // that come and go
	made    int
}

// commands is a change by commands. What is there already, or not any more, is as good.
func commands(all ...string) change {
	return change{strings.Join(all, "; "), func(n *cluster.Node) {
		for _, command := range all {
			words := strings.Fields(command)
			_, _ = n.Output(words[0], words[1:]...)
		}
	}}
}

func (m *turmoil) restarted(flags ...string) change {
	return change{"restarted with " + strings.Join(flags, " "), func(n *cluster.Node) {
		n.Restart(append(slices.Concat(m.flags, m.policies(n)), flags...)...)
	}}
}

func (m *turmoil) policies(n *cluster.Node) []string {
	return []string{"--policies", "--policies-dir", m.objects, "--policies-file", filepath.Join(n.Directory, "policies.json")}
}

// detached takes programs away from one of a node's interfaces.
func (m *turmoil) detached(sides ...side) change {
	return change{fmt.Sprint("detached ", sides), func(n *cluster.Node) {
		links := []string{"eth0", "flatnet.vx"}
		for _, p := range m.pods {
			if p.Node == n {
				links = append(links, p.HostInterface)
			}
		}
		_ = detach(n, links[m.dice.IntN(len(links))], sides...) // none may be there
	}}
}

// narrowed has all nodes' interfaces take packets up to a size, which is more or less than
// that of pods.
func (m *turmoil) narrowed(mtu int) change {
	return change{fmt.Sprint("MTU ", mtu), func(*cluster.Node) {
		for _, n := range m.Nodes {
			_, err := n.Output("ip", "link", "set", "eth0", "mtu", fmt.Sprint(mtu))
			must(m.t, err)
		}
	}}
}

// aPod comes, says something, and one of those that are there may go.
func (m *turmoil) aPod(n *cluster.Node) {
	const most = 3
	if len(m.extra) == most {
		gone := m.dice.IntN(most)
		m.extra[gone].Delete()
		must(m.t, os.Remove(filepath.Join(m.objects, "pod-"+m.extra[gone].Name+".yaml")))
		m.extra = slices.Delete(m.extra, gone, gone+1)
	}
	m.made++
	p := n.Prepare("test", fmt.Sprint("extra", m.made))
	describe(m.t, m.objects, p, "app: extra") // which opens it
	must(m.t, p.Add())
	describe(m.t, m.objects, p, "app: extra")
	m.extra = append(m.extra, p)
	k := m.talk(p.Namespace, netip.AddrPortFrom(m.pods[0].Address(m.made%2 > 0), 80))
	must(m.t, k.say("here I am"))
	must(m.t, k.Close())
}

// aPolicy allows what the test does, in one way or another, or is gone.
func (m *turmoil) aPolicy(*cluster.Node) {
	path := filepath.Join(m.objects, "policy.yaml")
	spec := []string{
		"{podSelector: {}, ingress: [{}]}",
		"{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}",
		"{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16}}, {ipBlock: {cidr: \"fd00:244::/32\"}}]}]}",
	}
	which := m.dice.IntN(len(spec) + 1)
	if which == len(spec) {
		_ = os.Remove(path) // there may be none
		return
	}
	object(m.t, m.objects, "policy", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: test, name: random}\nspec: "+spec[which]+"\n")
}

func (m *turmoil) changes() []change {
	return []change{
		commands("nft add table ip other", "nft delete table ip other"),
		commands("nft flush ruleset"),
		commands("nft delete table inet flatnet-fastpath"),
		commands("ip route add 198.51.100.0/24 dev eth0"),
		commands("ip route del 198.51.100.0/24 dev eth0"),
		commands("ip neigh flush dev eth0"),
		commands("ip rule add pref 100 to 198.51.100.1 lookup main"),
		commands("ip rule del pref 100"),
		m.detached(bothSides...),
		m.detached(ingress),
		m.detached(egress),
		{"killed", func(n *cluster.Node) { n.Kill(); n.StartAgain() }},
		m.restarted("--fabric", "vxlan"),
		m.restarted("--fabric", "auto"),
		m.restarted("--datapath", "kernel"),
		m.narrowed(1350),
		m.narrowed(1500),
		{"a pod", m.aPod},
		{"a policy", m.aPolicy},
	}
}

// Whatever changes at random: every byte of every connection arrives, and in the end all of
// them take the fast path.
func TestRandomChanges(t *testing.T) {
	seed := chosenSeed(t)
	m := &turmoil{site: prepare(t, cluster.Dual, 2, "--fabric", "auto", "--mtu", "1400"), dice: rand.New(rand.NewPCG(seed, 0))}
	m.objects = filepath.Join(m.Directory, "objects")
	must(t, os.Mkdir(m.objects, 0o700))
	m.WriteNodes()
	for _, n := range m.Nodes {
		n.Start(append(m.flags, m.policies(n)...)...)
		n.WaitReady()
	}
	n1, n2 := m.Nodes[0], m.Nodes[1]
	web, near, far := m.pod(n1, "web"), m.pod(n1, "near"), m.pod(n2, "far")
	m.pods = []*cluster.Pod{web, near, far}
	for _, p := range m.pods {
		describe(t, m.objects, p, "app: "+p.Name)
	}
	web.Namespace.ServeLines(t, 80)
	var all []*echoing
	for i, ipv6 := range []bool{false, true} {
		to := netip.AddrPortFrom(web.Address(ipv6), 80)
		all = append(all, m.echo(fmt.Sprint("near to ", to), near, to, seed+uint64(i)), m.echo(fmt.Sprint("far to ", to), far, to, seed+uint64(i+10)))
	}
	until := time.Now().Add(20 * time.Second)
	if text := os.Getenv(timeVariable); text != "" {
		d, err := time.ParseDuration(text)
		must(t, err)
		until = time.Now().Add(d)
	}
	changes := m.changes()
	count, least := 0, len(changes)
	order := m.dice.Perm(len(changes)) // so that each is made at least once
	for ; count < least || time.Now().Before(until); count++ {
		n, which := m.Nodes[m.dice.IntN(2)], m.dice.IntN(len(changes))
		if count < len(order) {
			which = order[count]
		}
		what := fmt.Sprintf("change %d, %s on %s", count, changes[which].what, n.Name)
		changes[which].do(n)
		for _, e := range all {
			before := e.rounds.Load()
			m.Eventually(fmt.Sprintf("%s to go on after %s", e.name, what), func() error {
				select {
				case err := <-e.ended:
					t.Fatalf("%s ended after %s: %v", e.name, what, err)
				default:
				}
				if e.rounds.Load() < before+2 {
					return fmt.Errorf("%d rounds", e.rounds.Load())
				}
				return nil
			})
		}
	}
	for _, p := range m.extra {
		p.Delete()
	}
	for _, n := range m.Nodes {
		n.Restart(append(m.flags, m.policies(n)...)...)
		m.Eventually("all to take the fast path of "+n.Name, func() error {
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
