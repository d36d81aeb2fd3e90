package fastpath_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/fastpath"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/poddevice"
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
	web.Namespace.ServeLines(t, 80)
	talks := s.fastTalks(client, web, n)
	const times, often = 100, 20
	for i := range times {
		// It is killed at any point of its start: some have not begun, some are done.
		for range i % often {
			for _, k := range talks {
				must(t, k.say("beginning"))
			}
		}
		n.Kill()
		for _, k := range talks {
			must(t, k.say("without"))
		}
		var late *cluster.Pod
		if i%often == 0 {
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

// taking is how somebody takes away what the fast path needs at an interface.
type taking struct {
	what string
	do   func(n *cluster.Node, name string) error
}

func detaching(what string, sides ...side) taking {
	return taking{what, func(n *cluster.Node, name string) error { return detach(n, name, sides...) }}
}

func running(command string) taking {
	return taking{command, func(n *cluster.Node, _ string) error {
		words := strings.Fields(command)
		_, err := n.Output(words[0], words[1:]...)
		return err
	}}
}

// What somebody takes away comes back and is counted; connections go on. Of tables the
// kernel tells, so nothing has to be compared.
func TestProgramsTakenAway(t *testing.T) {
	for resync, takings := range map[string][]taking{
		"1s": {detaching("look detached", ingress), detaching("learn detached", egress), detaching("both detached", bothSides...)},
		"1h": {running("nft delete table inet flatnet-fastpath"), running("nft flush ruleset")},
	} {
		t.Run("compared every "+resync, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, cluster.IPv4, 2, "--fabric", "vxlan", "--resync", resync)
			n := s.Nodes[0]
			near, client, far := s.pod(n, "near"), s.pod(n, "client"), s.pod(s.Nodes[1], "far")
			near.Namespace.ServeLines(t, 80)
			far.Namespace.ServeLines(t, 80)
			here := s.talk(client.Namespace, netip.AddrPortFrom(near.Address(false), 80))
			there := s.talk(client.Namespace, netip.AddrPortFrom(far.Address(false), 80))
			s.fast(here, n)
			s.fast(there, s.Nodes...)
			for _, taking := range takings {
				for _, name := range []string{client.HostInterface, "flatnet.vx", "eth0"} {
					repairs := n.Repairs("fast path")
					must(t, taking.do(n, name))
					must(t, here.say("on"))
					must(t, there.say("on"))
					s.Eventually("the repair of "+name+" after "+taking.what, func() error {
						if now := n.Repairs("fast path"); now <= repairs {
							return fmt.Errorf("%g repairs are counted", now)
						}
						return nil
					})
					s.fast(here, n)
					s.fast(there, s.Nodes...)
				}
			}
		})
	}
}

// Programs of others, before flatnet's and behind, stay and are asked; where they decide
// what a pod receives, its flows are not remembered, and the status says so.
func TestProgramsOfOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.IPv4, 2, "--fabric", "direct")
	n := s.Nodes[0]
	web, client := s.pod(s.Nodes[1], "web"), s.pod(n, "client")
	web.Namespace.ServeLines(t, 80)
	k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
	tc := func(command string) {
		t.Helper()
		words := strings.Fields(command)
		_, err := n.Output("tc", words...)
		must(t, err)
	}
	clsact(t, n, client.HostInterface)
	clsact(t, n, "eth0")
	tc("filter add dev " + client.HostInterface + " ingress pref 1 protocol ip u32 match ip protocol 200 0xff flowid 1:1")
	tc("filter add dev eth0 egress pref 9000 protocol ip u32 match ip protocol 200 0xff flowid 1:1")
	for _, where := range []anchor{head, tail} {
		addProgram(t, n, client.HostInterface, ingress, where, next)
		addProgram(t, n, "eth0", egress, where, next)
	}
	s.fast(k, s.Nodes...)
	n.Restart(s.flags...)
	s.inUse(n)
	s.fast(k, s.Nodes...)
	for _, name := range []string{client.HostInterface, "eth0"} {
		if text := filters(t, n, name); strings.Count(text, "u32") < 1 {
			t.Errorf("filters of %s:\n%s", name, text)
		}
		all, own := programs(t, n, name), ownPrograms(t, n, name)
		if !slices.Contains(own, "look") || len(own) != 2 || len(all) != 4 {
			t.Errorf("programs at %s: %v", name, all)
		}
	}
	// Who decides for good is obeyed: what flatnet's program says behind is not heard, and
	// what it says before is not learned. Of links the kernel tells nobody; so the direction
	// that they do not see goes on until something else changes.
	a, b := k.ends()
	deciding := func(where anchor) func() func() {
		return func() func() {
			undo := addProgram(t, n, client.HostInterface, ingress, where, pass)
			must(t, running("nft add table ip other").do(n, ""))
			must(t, running("nft delete table ip other").do(n, ""))
			return undo
		}
	}
	place := "dev " + client.HostInterface + " ingress pref 2"
	for _, decides := range []func() (undo func()){
		deciding(head),
		deciding(tail),
		func() func() {
			tc("filter add " + place + " protocol ip u32 match u32 0 0 flowid 1:1")
			return func() { tc("filter del " + place) }
		},
	} {
		undo := decides()
		s.Eventually("the end of the fast path", func() error {
			packets := s.takes(n, a, b)
			for range 10 {
				must(t, k.say(brief))
			}
			if s.takes(n, a, b) != packets {
				return errors.New("packets take the fast path")
			}
			return nil
		})
		undo()
		s.fast(k, s.Nodes...)
	}

	passedBy := func() {
		t.Helper()
		s.Eventually("the reason in the status", func() error {
			text, err := n.Flatnetd("status")
			if err == nil && !strings.Contains(text, "not at "+client.HostInterface) {
				err = errors.New(text)
			}
			return err
		})
		packets := s.takes(n, a, b)
		for range 10 {
			must(t, k.say(brief))
		}
		if s.takes(n, a, b) > packets {
			t.Error("what somebody else decides is passed by")
		}
		if own := ownPrograms(t, n, client.HostInterface); len(own) > 0 {
			t.Errorf("programs are still there: %v", own)
		}
		if text := filters(t, n, client.HostInterface); !strings.Contains(text, "u32") {
			t.Errorf("filters are\n%s", text)
		}
	}
	tc("filter add dev " + client.HostInterface + " egress pref 1 protocol ip u32 match u32 0 0 flowid 1:1")
	passedBy()
	tc("filter del dev " + client.HostInterface + " egress pref 1")
	s.fast(k, s.Nodes...)
	// Of links the kernel tells nobody: a comparison finds them.
	n.Restart(append(s.flags, "--resync", "1s")...)
	s.inUse(n)
	s.fast(k, s.Nodes...)
	for _, where := range []anchor{head, tail} {
		undo := addProgram(t, n, client.HostInterface, egress, where, pass)
		passedBy()
		if all := programs(t, n, client.HostInterface); len(all) != 3 {
			t.Errorf("programs at %s: %v", client.HostInterface, all)
		}
		undo()
		s.fast(k, s.Nodes...)
	}
	if poddevice.Chosen(t) == poddevice.Netkit {
		// A netkit pair has programs of its own, which are asked behind those of tcx.
		undo := addProgram(t, n, client.HostInterface, primary, tail, pass)
		passedBy()
		undo()
		s.fast(k, s.Nodes...)
	}
}

// A pod that is held to a rate, or for which it is switched off, takes the kernel's path.
func TestPodsWithout(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.IPv4, 1)
	n := s.Nodes[0]
	web := s.pod(n, "web")
	web.Namespace.ServeLines(t, 80)
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
		must(t, k.say(brief))
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
	t.Parallel()
	s := newSite(t, cluster.IPv4, 1)
	n := s.Nodes[0]
	web, client := s.pod(n, "web"), s.pod(n, "client")
	web.Namespace.ServeLines(t, 80)
	k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
	left := func() string {
		text, err := n.Output("nft", "list", "tables")
		must(t, err)
		all := ""
		if strings.Contains(text, "fastpath") {
			all += text
		}
		for _, name := range []string{"eth0", web.HostInterface} {
			all += strings.Join(programs(t, n, name), " ")
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
		must(t, k.say(brief))
		n.Restart(s.flags...)
		s.inUse(n)
	}
	s.fast(k, n)
	n.Stop()
	must(t, k.say("nobody is there"))
	for _, name := range []string{"eth0", web.HostInterface} {
		if all := programs(t, n, name); fastpath.HasLinks() && len(all) > 0 {
			t.Errorf("programs that outlive flatnetd at %s: %v", name, all)
		}
	}
	text, err := n.Flatnetd("cleanup")
	must(t, err)
	if !strings.Contains(text, "flatnet-fastpath") {
		t.Errorf("cleanup: %s", text)
	}
	if text := left(); text != "" {
		t.Errorf("left is %s", text)
	}
	// The pod's ends with the pod; to take it away before would lose packets.
	if kind := queueAtIngress(t, n, "eth0"); kind != "" {
		t.Errorf("eth0 has still qdisc %s", kind)
	}
}

// Where flatnetd may not do what the fast path needs, packets take the kernel's path, and
// the status says why; with the right it goes on from there.
func TestWithoutTheRight(t *testing.T) {
	for what, c := range map[string]struct {
		under  []string
		reason string // "" where it may be in use all the same
	}{
		"no CAP_BPF":           {[]string{"setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"}, "CAP_BPF"},
		"little locked memory": {[]string{"prlimit", "--memlock=65536", "setpriv", "--bounding-set", "-sys_resource"}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(c.under[0]); err != nil {
				t.Skipf("%s is needed: %v", c.under[0], err)
			}
			s := newSite(t, cluster.IPv4, 1)
			n := s.Nodes[0]
			web, client := s.pod(n, "web"), s.pod(n, "client")
			web.Namespace.ServeLines(t, 80)
			k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
			for _, datapath := range []string{"auto", "ebpf"} {
				s.fast(k, n)
				n.Stop()
				n.Under = c.under
				n.Start(append(s.flags, "--datapath", datapath)...)
				s.Eventually("the status of "+datapath, func() error {
					status, err := n.TryStatus()
					if err != nil {
						return err
					}
					f := status.FastPath
					if c.reason == "" && f.Datapath == "ebpf" {
						return nil // locked memory is what counts before Linux 5.11 only
					}
					named := strings.Contains(fmt.Sprint(status.Problems), "locked memory") || strings.Contains(fmt.Sprint(status.Problems), "CAP_BPF")
					if f.Datapath != "kernel" || !strings.Contains(f.Because, "not permitted") || !strings.Contains(f.Because, c.reason) || named != (datapath == "ebpf") {
						return fmt.Errorf("%+v, problems %v", f, status.Problems)
					}
					return nil
				})
				must(t, k.say("without the right"))
				n.Stop()
				n.Under = nil
				n.Start(s.flags...)
				n.WaitReady()
			}
			s.fast(k, n)
		})
	}
}
