package plugin

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/cni"
)

// restore calls Restore on the stage's node and returns what it mended.
func (s *stage) restore() []string {
	s.t.Helper()
	var repairs []string
	err := s.node.Do(func() (err error) {
		r := &cni.Request{Command: "RESTORE", Version: "1.1.0", Network: "net", Config: s.input(call{})}
		repairs, err = (&Plugin{}).Restore(context.Background(), r)
		return err
	})
	if err != nil {
		s.t.Fatalf("restoring: %v", err)
	}
	return repairs
}

// damage runs a command on the node.
func (s *stage) damage(command string) {
	s.t.Helper()
	if out, err := s.node.Output("sh", "-c", command); err != nil {
		s.t.Fatalf("%s: %v %s", command, err, out)
	}
}

func TestRestoreMendsWhatSomebodyTook(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs the executable nft (Debian: nftables) to do damage with")
	}
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	s.config["ipMasq"] = true
	a, b := s.lab.Pod("a"), s.lab.Pod("b")
	s.mustAdd("a", a)
	s.mustAdd("b", b)
	host := ""
	links, err := s.node.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "veth") {
			host = l.Attrs().Name
		}
	}
	if repairs := s.restore(); len(repairs) > 0 {
		t.Fatalf("nothing was damaged, and %v mended", repairs)
	}
	for _, c := range []struct{ damage, mended string }{
		{"ip route flush proto 70", "ip route add 10.1.2.2 dev"},
		{"ip -6 route flush proto 70", "ip route add fd00:1::3 dev"},
		{"ip route flush table local proto 70", "ip route add local 10.1.2.1"},
		{"ip -6 addr flush dev " + host + " to fe80::1", "ip addr add fe80::1/128"},
		{"sysctl -qw net.ipv4.conf." + host + ".rp_filter=0", "rp_filter=1"},
		{"sysctl -qw net.ipv4.ip_forward=0", "ip_forward=1"},
		{"nft flush ruleset", "nft:"},
		{"nft 'delete element ip flatnet masqueraded { 10.1.2.2 }'", "lacks 10.1.2.2"},
		{"nft flush chain ip6 flatnet guard", "guard has other rules"},
	} {
		s.damage(c.damage)
		repairs := strings.Join(s.restore(), "\n")
		if !strings.Contains(repairs, c.mended) {
			t.Errorf("%s: mended was\n%s\nwant %q among it", c.damage, repairs, c.mended)
		}
		if again := s.restore(); len(again) > 0 {
			t.Errorf("%s: mended a second time: %v", c.damage, again)
		}
		for _, destination := range []string{"10.1.2.3", "fd00:1::3"} {
			if got := seen(t, a, b, netip.Addr{}, address(destination)); got == "" {
				t.Errorf("%s: a does not reach %s", c.damage, destination)
			}
		}
	}
	s.mustDel("a", a.Path)
	s.mustDel("b", b.Path)
	s.checkNothingLeft("DEL after restoring")
	if repairs := s.restore(); len(repairs) > 0 {
		t.Errorf("without a pod %v was mended", repairs)
	}
	s.checkNothingLeft("restoring without a pod")
}

// At every moment of an ADD and of a DEL: what is being made is not made by
// somebody else, and what is being removed does not come back.
func TestRestoreIsNotInTheWay(t *testing.T) {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	s.config["ipMasq"] = true
	other, pod := s.lab.Pod("other"), s.lab.Pod("pod")
	s.mustAdd("other", other)
	meddle := func(string) error {
		r := &cni.Request{Command: "RESTORE", Version: "1.1.0", Network: "net", Config: s.input(call{})}
		// Where the verb holds the lock, Restore would wait for it for ever.
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		repairs, err := (&Plugin{}).restoreUnlocked(ctx, r)
		if len(repairs) > 0 {
			t.Errorf("mended %v", repairs)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("restoring meanwhile: %v", err)
		}
		return nil
	}
	result, err := s.run(call{verb: "ADD", container: "c", netns: pod.Path, step: meddle})
	if err != nil {
		t.Fatal(err)
	}
	if got := addressesOf(result); got[0] != "10.1.2.3" {
		t.Errorf("the pod has %v: something was in the way", got)
	}
	if _, err := s.run(call{verb: "DEL", container: "c", netns: pod.Path, step: meddle}); err != nil {
		t.Fatal(err)
	}
	s.mustDel("other", other.Path)
	s.checkNothingLeft("ADD and DEL with Restore at every step")
}
