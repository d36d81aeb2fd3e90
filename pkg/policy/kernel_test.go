package policy

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// The kernel takes the rules of random clusters, one after another; what it has then is
// what was wanted, and `nft` can list it.
func TestKernelHasWhatIsWanted(t *testing.T) {
	lab := netlab.Start(t)
	node := lab.Node("node")
	err := node.Do(func() error {
		k := &nft.Keeper{Keeps: []nft.ID{tableID}, Log: silent}
		defer k.Close()
		d := newDice(1)
		c, w, e := newCluster(), newWorld(), newEnded()
		for _, name := range []string{"x", "y", "z"} {
			n := d.namespace(name)
			c.namespaces[name] = n
			w.apply(Batch{Namespaces: map[string]*Namespace{name: FromNamespace(n)}})
		}
		var made *plan
		again := 0
		for step := range 150 {
			w.apply(c.step(d))
			w.attach(c.attached())
			if made == nil || w.stirred { // as the controller does
				made = w.replan()
			} else {
				again++
			}
			if step%10 == 4 { // for ten steps, every other time
				if !e.any() {
					e.add(flow{netip.MustParseAddrPort("10.1.0.9:40000"), netip.MustParseAddrPort("10.2.0.9:80"), TCP}, endedFlow{})
				} else {
					e.remove(func(flow, endedFlow) bool { return true })
				}
			}
			want := made.tables(w, e)
			_, compared, err := k.Sync(context.Background(), want, append(w.takeChanges(), e.take()...)...)
			if err != nil {
				return err
			}
			if compared && step > 0 {
				t.Errorf("step %d: the kernel did not have what the keeper had left there", step)
			}
			if step%10 != 9 {
				continue
			}
			left := newEnded()
			if left.look(k); left.any() != e.any() {
				t.Errorf("step %d: that flows were ended is seen as %t, and is %t", step, left.any(), e.any())
			}
			other := &nft.Keeper{Keeps: []nft.ID{tableID}, Log: silent}
			r, err := other.Verify(context.Background(), want)
			other.Close()
			if err != nil {
				return err
			}
			// Chains that are needed no longer go a second later.
			for _, found := range r.Found {
				if !strings.HasSuffix(found, "is not wanted") || !strings.HasPrefix(found, "chain ") {
					t.Errorf("step %d: %s", step, found)
				}
			}
			if output, err := exec.Command("nft", "list", "table", "inet", TableName).CombinedOutput(); err != nil {
				t.Errorf("step %d: nft: %v: %s", step, err, output)
			}
		}
		if again == 0 {
			t.Error("no step left the plan as it was: the test does not test that")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Nothing of a policy that is gone stays in the table, without anything else that happens.
func TestNothingStaysOfAPolicyThatIsGone(t *testing.T) {
	c, node, _ := explaining(t)
	source := c.source.(*handed)
	gone := map[PolicyKey]*Policy{}
	if err := c.do(t.Context(), func() {
		for key := range c.world.policies {
			gone[key] = nil
		}
		source.next = Batch{Policies: gone}
		c.Attach(slices.Collect(maps.Values(c.world.attached)))
	}); err != nil {
		t.Fatal(err)
	}
	fresh := newWorld().replan().table(newWorld(), newEnded().elements(), false)
	for deadline := time.Now().Add(20 * time.Second); ; {
		output, err := node.Output("nft", "list table inet "+TableName)
		if err != nil {
			t.Fatal(err)
		}
		var extra []string
		for line := range strings.Lines(output) {
			words := strings.Fields(line)
			if len(words) != 3 || words[2] != "{" || !slices.Contains([]string{"chain", "set", "map"}, words[0]) {
				continue
			}
			chain := slices.ContainsFunc(fresh.Chains, func(c nft.Chain) bool { return c.Name == words[1] })
			if !chain && !slices.ContainsFunc(fresh.Sets, func(s nft.Set) bool { return s.Name == words[1] }) {
				extra = append(extra, words[1])
			}
		}
		if len(extra) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there still are %v", extra)
		}
	}
}
