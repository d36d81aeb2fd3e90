package host

import (
	"context"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// TestForwardWatcher: what docker does is told, once for each transaction, and
// what others do is not.
func TestForwardWatcher(t *testing.T) {
	node := netlab.Start(t).Node("node")
	calls := make(chan struct{}, 100)
	var m *nft.Monitor
	if err := node.Do(func() (err error) {
		m, err = nft.NewMonitor(&ForwardWatcher{Changed: func() { calls <- struct{}{} }})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	steps := []string{
		"", // the beginning
		"add table ip x; add chain ip x hooked { type filter hook forward priority 0; policy drop; }",
		"add chain ip x hooked { policy accept; }",
		"add table ip filter; add chain ip filter FORWARD; add rule ip filter FORWARD counter; add rule ip filter FORWARD counter",
		"flush chain ip filter FORWARD",
	}
	told := []bool{true, true, true, false, true}
	for i, script := range steps {
		// What is not to be told would come before what follows it.
		if script != "" {
			if _, err := node.Output("nft", script); err != nil {
				t.Fatal(err)
			}
		}
		if !told[i] {
			continue
		}
		select {
		case <-calls:
		case <-time.After(pace.Far()):
			t.Fatalf("%q was not told", script)
		}
	}
	for _, script := range []string{
		"add table ip y; add chain ip y hooked { type filter hook input priority 0; }; add chain ip y FORWARD2",
		"add rule ip y hooked counter; flush chain ip y hooked",
	} {
		if _, err := node.Output("nft", script); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(calls) > 0 {
		t.Errorf("%d calls too many", len(calls))
	}
}
