package policy

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// Explain says where the kernel's rules are others than those that it reckons from: what
// somebody has changed while nobody repairs, as far as the connection is concerned.
func TestExplainComparesWithTheKernel(t *testing.T) {
	c, node, repaired := explaining(t)
	kernel := func(from, to string, port Port) *InKernel {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		e, err := c.Explain(ctx, from, to, port)
		if err != nil {
			t.Fatal(err)
		}
		return e.Kernel
	}
	chains := map[string]string{}
	if err := c.do(t.Context(), func() {
		for s, leads := range c.plan.leads {
			for a, name := range leads {
				chains[s.String()+" "+a.String()] = name
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	web4, near6 := chains["ingress4 10.0.0.1"], chains["egress6 fd00::2"]
	http := Port{Protocol: TCP, First: 80, Last: 80}
	good := keyOf(Selector{Namespace: "shop", Pods: labels.SelectorFromSet(labels.Set{"app": "good"})}, "", 0).name(ipv4)
	block := blockName(ipv4, ipv4.ranges([]Block{{CIDR: netip.MustParsePrefix("10.0.0.0/30")}}))
	for _, change := range []struct {
		name, commands string
		want           []string
	}{
		{"nothing", "", nil},
		{"what has no say", "add chain inet flatnet-policy mine; delete element inet flatnet-policy " + good + " { 10.0.0.3 }; add element inet flatnet-policy ingress4 { 10.0.0.7 : goto refused-ingress4 }", nil},
		{"the hook", "flush chain inet flatnet-policy forward", []string{"chain forward has other rules"}},
		{"what all meet", "insert rule inet flatnet-policy new accept", []string{"chain new has other rules"}},
		{"where it leads", "delete element inet flatnet-policy ingress4 { 10.0.0.1 }", []string{"set ingress4 lacks 1 of 1: 10.0.0.1 : goto " + web4}},
		{"the destination's chain", "insert rule inet flatnet-policy " + web4 + " accept", []string{"chain " + web4 + " has other rules"}},
		{"the source's chain", "flush chain inet flatnet-policy " + near6, []string{"chain " + near6 + " has other rules"}},
		{"a group", "delete element inet flatnet-policy " + good + " { 10.0.0.2 }", []string{"set " + good + " lacks 1 of 3: 10.0.0.2"}},
		{"a network", "add element inet flatnet-policy " + block + " { 10.9.0.0/16 }", []string{"set " + block + " has 1 too many: 10.9.0.0/16"}},
		{"where what is refused ends", "flush chain inet flatnet-policy refused-ingress4", []string{"chain refused-ingress4 has other rules"}},
		{"a pair as if it were one pod", "add element inet flatnet-policy self4 { 10.0.0.2 . 10.0.0.1 }", []string{"set self4 has 1 too many: 10.0.0.2 . 10.0.0.1"}},
		{"all of it", "delete table inet flatnet-policy", []string{"table is missing"}},
	} {
		t.Run(change.name, func(t *testing.T) {
			if change.commands != "" {
				if output, err := node.Output("nft", change.commands); err != nil {
					t.Fatalf("%v: %s", err, output)
				}
			}
			got := kernel("shop/near", "shop/web", http)
			if got == nil || got.Failure != "" || !slices.Equal(got.Differs, change.want) || got.Differs == nil {
				t.Errorf("the kernel: %+v, want %q", got, change.want)
			}
			if change.commands == "" {
				return
			}
			// With the repair it is the same again.
			c.touched.Give()
			select {
			case <-repaired:
			case <-time.After(10 * time.Second):
				t.Fatal("it is not repaired")
			}
			if got := kernel("shop/near", "shop/web", http); len(got.Differs) > 0 {
				t.Errorf("after the repair: %q", got.Differs)
			}
		})
	}
	if got := kernel("10.0.0.99", "127.0.0.1", http); got != nil {
		t.Errorf("what is for the node itself was compared: %+v", got)
	}
	// A pod that is not open yet.
	if err := node.Do(func() error {
		return (&closed.Table{}).Close([]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.5")}, true, false)
	}); err != nil {
		t.Fatal(err)
	}
	if got := kernel("shop/near", "shop/web", http); len(got.Differs) > 0 || !slices.Equal(got.Closed, []netip.Addr{netip.MustParseAddr("10.0.0.1")}) {
		t.Errorf("closed: %+v", got)
	}
	if err := node.Do(func() error {
		return (&closed.Table{}).Begin([]netip.Addr{netip.MustParseAddr("10.0.0.2")}, false, false)
	}); err != nil {
		t.Fatal(err)
	}
	if got := kernel("shop/near", "shop/web", http); len(got.Differs) > 0 || !slices.Equal(got.Evicted, []netip.Addr{netip.MustParseAddr("10.0.0.2")}) {
		t.Errorf("evicted: %+v", got)
	}
}

// explaining is a controller that keeps the rules of a cluster, and repairs only when it
// is told to; repaired has an element when it has.
func explaining(t *testing.T) (c *Controller, node *netlab.Node, repaired loop.Signal) {
	t.Helper()
	all := histories()
	cluster := all[slices.IndexFunc(all, func(h history) bool { return h.name == "policies added" })].after
	node = netlab.Start(t).Node("node")
	c, repaired = NewController(&handed{next: cluster.everything()}, silent), loop.NewSignal()
	c.Observe = func(o Observation) {
		if o.Repaired > 0 {
			repaired.Give()
		}
	}
	c.Resync, c.KeepFlows = 0, true
	c.Gate = &siteGate{killer: &killer{at: -1}, site: &crashSite{list: filepath.Join(t.TempDir(), "policies.json")}}
	c.Attach(cluster.attached())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Do(func() error { c.Run(ctx); return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); !c.Summary().Synced; {
		if time.Now().After(deadline) {
			t.Fatalf("the rules are not written: %+v", c.Summary())
		}
		time.Sleep(time.Millisecond)
	}
	return c, node, repaired
}
