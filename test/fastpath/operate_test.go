package fastpath_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// filters is what tc says of an interface, both sides.
func filters(t *testing.T, n *cluster.Node, link string) string {
	t.Helper()
	var all string
	for _, side := range []string{"ingress", "egress"} {
		text, err := n.Output("tc", "filter", "show", "dev", link, side)
		must(t, err)
		all += text
	}
	return all
}

// Connections go on without flatnetd, which is killed and started again, and take the fast
// path all the time; a pod that is attached meanwhile gets it when flatnetd is back.
func TestFlatnetdKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.Dual, 1)
	n := s.Nodes[0]
	web, client := s.pod(n, "web"), s.pod(n, "client")
	serve(t, web.Namespace, 80)
	var talks []*talk
	for _, ipv6 := range []bool{false, true} {
		k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80))
		s.fast(k, n)
		talks = append(talks, k)
	}
	const times = 20
	for i := range times {
		n.Kill()
		for _, k := range talks {
			must(t, k.say("without"))
		}
		var late *cluster.Pod
		if i%5 == 0 {
			late = n.Pod(fmt.Sprint("late", i))
			talks = append(talks, s.talk(late.Namespace, netip.AddrPortFrom(web.Address(false), 80)))
		}
		n.StartAgain()
		for _, k := range talks {
			must(t, k.say("beginning"))
		}
		if late != nil {
			n.WaitReady()
			s.inUse(n)
			s.attached(late)
			for _, k := range talks {
				s.fast(k, n)
			}
		}
	}
}

// What somebody takes away comes back and is counted; connections go on.
func TestProgramsTakenAway(t *testing.T) {
	t.Setenv(asBefore, "1")
	s := newSite(t, cluster.IPv4, 2, "--fabric", "vxlan")
	n := s.Nodes[0]
	near, client, far := s.pod(n, "near"), s.pod(n, "client"), s.pod(s.Nodes[1], "far")
	serve(t, near.Namespace, 80)
	serve(t, far.Namespace, 80)
	here := s.talk(client.Namespace, netip.AddrPortFrom(near.Address(false), 80))
	there := s.talk(client.Namespace, netip.AddrPortFrom(far.Address(false), 80))
	s.fast(here, n)
	s.fast(there, s.Nodes...)
	for _, command := range []string{
		"tc filter del dev LINK ingress", "tc filter del dev LINK egress pref 7070", "tc qdisc del dev LINK clsact",
		"nft delete table inet flatnet-fastpath", "nft flush ruleset",
	} {
		for _, link := range []string{client.HostInterface, "flatnet.vx", "eth0"} {
			repairs := n.Repairs("fast path")
			words := strings.Fields(strings.ReplaceAll(command, "LINK", link))
			_, err := n.Output(words[0], words[1:]...)
			must(t, err)
			must(t, here.say("on"))
			must(t, there.say("on"))
			s.Eventually("the repair after "+strings.Join(words, " "), func() error {
				if now := n.Repairs("fast path"); now <= repairs {
					return fmt.Errorf("%g repairs are counted", now)
				}
				return nil
			})
			s.fast(here, n)
			s.fast(there, s.Nodes...)
		}
	}
}

// Programs of others, before flatnet's and behind, stay and are asked; where they decide
// what a pod receives, its flows are not remembered, and the status says so.
func TestProgramsOfOthers(t *testing.T) {
	t.Setenv(asBefore, "1")
	s := newSite(t, cluster.IPv4, 2, "--fabric", "direct")
	n := s.Nodes[0]
	web, client := s.pod(s.Nodes[1], "web"), s.pod(n, "client")
	serve(t, web.Namespace, 80)
	k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
	tc := func(command string) {
		t.Helper()
		words := strings.Fields(command)
		_, err := n.Output("tc", words...)
		must(t, err)
	}
	before := "filter add dev " + client.HostInterface + " ingress pref 1 protocol ip u32 match ip protocol 200 0xff flowid 1:1"
	behind := "filter add dev eth0 egress pref 9000 protocol ip u32 match ip protocol 200 0xff flowid 1:1"
	tc(before)
	tc(behind)
	s.fast(k, s.Nodes...)
	n.Restart(s.flags...)
	s.inUse(n)
	s.fast(k, s.Nodes...)
	for _, link := range []string{client.HostInterface, "eth0"} {
		if text := filters(t, n, link); strings.Count(text, "u32") < 1 || !strings.Contains(text, "flatnet_look") {
			t.Errorf("filters of %s:\n%s", link, text)
		}
	}
	// Who decides for good is obeyed: what flatnet's program says behind is not heard.
	tc("filter add dev " + client.HostInterface + " ingress pref 2 protocol ip u32 match u32 0 0 flowid 1:1")
	a, b := k.ends()
	s.Eventually("the end of the fast path", func() error {
		packets := s.takes(n, a, b)
		for range 10 {
			must(t, k.say("by the stack"))
		}
		if s.takes(n, a, b) != packets {
			return errors.New("packets take the fast path")
		}
		return nil
	})
	tc("filter del dev " + client.HostInterface + " ingress pref 2")
	s.fast(k, s.Nodes...)

	tc("filter add dev " + client.HostInterface + " egress pref 1 protocol ip u32 match u32 0 0 flowid 1:1")
	s.Eventually("the reason in the status", func() error {
		text, err := n.Flatnetd("status")
		if err == nil && !strings.Contains(text, "not at "+client.HostInterface) {
			err = errors.New(text)
		}
		return err
	})
	packets := s.takes(n, a, b)
	for range 10 {
		must(t, k.say("by the stack"))
	}
	if s.takes(n, a, b) > packets {
		t.Error("somebody else's filter is passed by")
	}
	if text := filters(t, n, client.HostInterface); strings.Contains(text, "flatnet") || !strings.Contains(text, "u32") {
		t.Errorf("filters are\n%s", text)
	}
}

// A pod that is held to a rate, or for which it is switched off, takes the kernel's path.
func TestPodsWithout(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.IPv4, 1)
	n := s.Nodes[0]
	web := s.pod(n, "web")
	serve(t, web.Namespace, 80)
	slowed := n.Prepare("test", "slowed")
	slowed.Capabilities = map[string]any{"bandwidth": map[string]any{"ingressRate": 1e9, "ingressBurst": 1e7}}
	must(t, slowed.Add())
	other, client := s.pod(n, "other"), s.pod(n, "client")
	to := netip.AddrPortFrom(web.Address(false), 80)
	held, k, control := s.talk(slowed.Namespace, to), s.talk(other.Namespace, to), s.talk(client.Namespace, to)
	s.fast(control, n)
	s.fast(k, n)
	s.slow("a pod with a rate", held, n)
	path := filepath.Join(n.StateDir, "without-fast-path")
	must(t, os.WriteFile(path, []byte("# for now\ntest/other\n"), 0o600))
	s.Eventually("it to be switched off", func() error {
		text, err := n.Flatnetd("status")
		if err == nil && (!strings.Contains(text, "not at "+other.HostInterface)) {
			err = errors.New(text)
		}
		return err
	})
	a, b := k.ends()
	packets := s.takes(n, a, b)
	for range 20 {
		must(t, k.say("by the stack"))
	}
	if s.takes(n, a, b) > packets {
		t.Error("it is not switched off")
	}
	s.fast(control, n)
	text, err := n.Flatnetd("status")
	must(t, err)
	t.Log("\n" + text)
	must(t, os.Remove(path))
	s.fast(k, n)
}

// What leaves nothing behind: --datapath kernel after ebpf, and cleanup.
func TestLeavingTheFastPath(t *testing.T) {
	t.Setenv(asBefore, "1")
	s := newSite(t, cluster.IPv4, 1)
	n := s.Nodes[0]
	web, client := s.pod(n, "web"), s.pod(n, "client")
	serve(t, web.Namespace, 80)
	k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
	left := func() string {
		text, err := n.Output("nft", "list", "tables")
		must(t, err)
		all := ""
		if strings.Contains(text, "fastpath") {
			all += text
		}
		for _, link := range []string{"eth0", web.HostInterface} {
			if text, err := n.Output("tc", "qdisc", "show", "dev", link); err == nil && strings.Contains(text, "clsact") {
				all += text
			}
		}
		return all
	}
	for range 3 {
		s.fast(k, n)
		n.Restart("--datapath", "kernel")
		s.Eventually("the kernel's path", func() error {
			if f := n.Status().FastPath; f.Datapath != "kernel" || f.Because != "--datapath kernel" || left() != "" {
				return fmt.Errorf("%+v, %s", f, left())
			}
			return nil
		})
		must(t, k.say("by the stack"))
		n.Restart(s.flags...)
		s.inUse(n)
	}
	s.fast(k, n)
	n.Stop()
	must(t, k.say("nobody is there"))
	text, err := n.Flatnetd("cleanup")
	must(t, err)
	if !strings.Contains(text, "fast path at interface eth0") || !strings.Contains(text, "flatnet-fastpath") {
		t.Errorf("cleanup: %s", text)
	}
	if text := left(); text != "" {
		t.Errorf("left is %s", text)
	}
}
