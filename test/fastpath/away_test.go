package fastpath_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/fastpath"
	"github.com/flatnet-cni/flatnet/test/cluster"
)

// Where filters need a qdisc, new interfaces are made with it, whether flatnetd runs or
// not; where they do not, or without the fast path, nobody makes one.
func TestQdiscOfNewInterfaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.IPv4, 1, "--fabric", "vxlan")
	n := s.Nodes[0]
	kind := "clsact"
	if fastpath.HasLinks() {
		kind = ""
	}
	for datapath, want := range map[string]string{"ebpf": kind, "kernel": ""} {
		n.Restart(append(s.flags, "--datapath", datapath)...)
		s.Eventually("the plugin's configuration", func() error {
			text, err := os.ReadFile(n.Conflist())
			if has := strings.Contains(string(text), `"clsact": true`); err == nil && has != (want != "") {
				err = fmt.Errorf("%s", text)
			}
			return err
		})
		n.Kill()
		p := n.Pod("new-" + datapath)
		if found := queueAtIngress(t, n, p.HostInterface); found != want {
			t.Errorf("with --datapath %s a pod's interface has qdisc %q, want %q", datapath, found, want)
		}
		n.StartAgain()
	}
	if found := queueAtIngress(t, n, "flatnet.vx"); found != kind {
		t.Errorf("the overlay has qdisc %q, want %q", found, kind)
	}
}

// What changes while flatnetd is away is in force before long, though programs of filters
// are still there: what nobody can have decided anew is the kernel's.
func TestChangeWhileFlatnetdIsAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.Dual, 1)
	n := s.Nodes[0]
	web, client := s.pod(n, "web"), s.pod(n, "client")
	web.Namespace.ServeLines(t, 80)
	for _, ipv6 := range []bool{false, true} {
		k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80))
		s.fast(k, n)
		n.Kill()
		must(t, k.say("without"))
		_, err := n.Output("ip", "route", "replace", "blackhole", web.Address(ipv6).String(), "metric", "1")
		must(t, err)
		_, err = n.Output("ip", "route", "del", web.Address(ipv6).String(), "dev", web.HostInterface)
		must(t, err)
		s.Eventually("nobody to get through", func() error {
			if err := k.sayWithin("still?", unanswered); err == nil {
				return errors.New("answered")
			}
			return nil
		})
		_, err = n.Output("ip", "route", "del", "blackhole", web.Address(ipv6).String(), "metric", "1")
		must(t, err)
		n.StartAgain()
		n.WaitReady()
		s.inUse(n)
		s.Eventually("a connection again", func() error {
			c, err := dial(client.Namespace, netip.AddrPort{}, netip.AddrPortFrom(web.Address(ipv6), 80))
			if err == nil {
				c.Close()
			}
			return err
		})
	}
}
