package host

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// watch watches a node until the test ends, and returns where calls arrive. The
// first, which says that it listens, has arrived already.
func watch(t *testing.T, node *netlab.Node) <-chan time.Time {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	calls := make(chan time.Time, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- node.Do(func() error {
			return Watch(ctx, func() { calls <- time.Now() })
		})
	}()
	t.Cleanup(func() {
		cancel()
		// Nothing else happens that could end it.
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	})
	wantCall(t, calls, "the beginning")
	return calls
}

func wantCall(t *testing.T, calls <-chan time.Time, what string) {
	t.Helper()
	select {
	case <-calls:
	case <-time.After(pace.Far()):
		t.Fatalf("no call after %s", what)
	}
}

func wantNoCall(t *testing.T, calls <-chan time.Time, what string) {
	t.Helper()
	select {
	case <-calls:
		t.Errorf("call after %s", what)
	default:
	}
}

func TestWatch(t *testing.T) {
	lab := netlab.Start(t)
	node := lab.Node("node", lab.Segment("lan").Port("172.30.0.1/24", "fd00:30::1/64"))
	setSysctls(t, node, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
	calls := watch(t, node)
	for _, change := range []string{
		"net/ipv4/ip_forward=0", "net/ipv4/ip_forward=1",
		"net/ipv4/conf/eth0/forwarding=0", "net/ipv4/conf/eth0/rp_filter=1", "net/ipv4/conf/all/rp_filter=2",
		"net/ipv6/conf/all/forwarding=0", "net/ipv6/conf/eth0/forwarding=1",
	} {
		setSysctls(t, node, change)
		wantCall(t, calls, change)
	}
}

// TestWatchCoalesces: forwarding of all interfaces makes a notification for each
// of a hundred, and those that come together make one call.
func TestWatchCoalesces(t *testing.T) {
	node := netlab.Start(t).Node("node")
	for i := range 50 {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("a", i)}, PeerName: fmt.Sprint("b", i)}
		if err := node.Netlink().LinkAdd(pair); err != nil {
			t.Fatal(err)
		}
	}
	calls := watch(t, node)
	begin := time.Now()
	setSysctls(t, node, "net/ipv4/ip_forward=1")
	wantCall(t, calls, "ip_forward=1")
	// What is written next is notified after all of that.
	setSysctls(t, node, "net/ipv4/conf/lo/rp_filter=1")
	wantCall(t, calls, "rp_filter=1")
	// A slow machine may need some more than these two, but never more than fit in.
	made := 2 + len(calls)
	if took := time.Since(begin); made > int(took/settle) {
		t.Errorf("%d calls in %s, with %s before each", made, took, settle)
	}
}

// TestWatchIgnoresPods: what the plugin sets for each pod is no change of the
// host, whatever else comes after it is.
func TestWatchIgnoresPods(t *testing.T) {
	node := netlab.Start(t).Node("node")
	calls := watch(t, node)
	pod := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0123456789a", Group: kernel.Group}, PeerName: "peer"}
	peer := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "other"}, PeerName: "other-peer"}
	if err := node.Netlink().LinkAdd(peer); err != nil {
		t.Fatal(err)
	}
	wantCall(t, calls, "an interface of somebody else")
	if err := node.Netlink().LinkAdd(pod); err != nil {
		t.Fatal(err)
	}
	wantCall(t, calls, "the pod's interface, whose peer is in no group here")
	calls = watch(t, node)
	setSysctls(t, node, "net/ipv4/conf/veth0123456789a/rp_filter=1", "net/ipv4/conf/veth0123456789a/forwarding=1")
	// Longer than changes are waited for: they would have made a call by now. Where the
	// machine is late, a call that is wrong may be missed, and none is made up.
	time.Sleep(3 * settle)
	wantNoCall(t, calls, "settings of a pod's interface")
	setSysctls(t, node, "net/ipv4/ip_forward=1")
	wantCall(t, calls, "ip_forward=1")
}

// TestWatchEnds: a context that has ended already, and the socket's namespace.
func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Watch(ctx, func() { t.Error("called") }); !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
}
