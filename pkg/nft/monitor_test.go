package nft

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// told writes down what a monitor tells.
type told chan string

func (t told) Missed() { t <- "missed" }

func (t told) Change(c Change) {
	t <- fmt.Sprintf("%d of family %d in table web: %t", c.Message, c.Family, c.InTable("web"))
}

func (t told) Commit(c Commit) { t <- fmt.Sprint("commit by ", c.Process) }

func (t told) expect(test *testing.T, want string) {
	test.Helper()
	select {
	case got := <-t:
		if got != want {
			test.Errorf("told %q, want %q", got, want)
		}
	case <-time.After(pace.Far()):
		test.Fatalf("not told %q", want)
	}
}

// monitored calls f while a monitor of the node's nftables runs.
func monitored(t *testing.T, bufferBytes int, listener Listener, f func(node *netlab.Node)) {
	node := netlab.Start(t).Node("node")
	var m *Monitor
	if err := node.Do(func() (err error) {
		m, err = newMonitor(bufferBytes, listener)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	f(node)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestMonitor(t *testing.T) {
	all := make(told, 100)
	monitored(t, 4<<20, all, func(node *netlab.Node) {
		all.expect(t, "missed")
		if err := node.Do(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv6, Name: "web"})
			c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "webs"})
			return c.Flush()
		}); err != nil {
			t.Fatal(err)
		}
		all.expect(t, fmt.Sprintf("%d of family %d in table web: true", unix.NFT_MSG_NEWTABLE, unix.NFPROTO_IPV6))
		all.expect(t, fmt.Sprintf("%d of family %d in table web: false", unix.NFT_MSG_NEWTABLE, unix.NFPROTO_IPV4))
		name, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			t.Fatal(err)
		}
		all.expect(t, "commit by "+strings.TrimSpace(string(name)))
	})
}

// slow is a listener that keeps the monitor from reading.
type slow struct {
	told
	wait chan struct{}
}

func (s slow) Missed() {
	<-s.wait
	s.told.Missed()
}

func TestMonitorSaysThatItMissedSomething(t *testing.T) {
	s := slow{make(told, 10_000), make(chan struct{}, 2)}
	monitored(t, 1, s, func(node *netlab.Node) {
		if err := node.Do(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			for i := range 200 {
				c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: fmt.Sprint("table-with-a-name-", i)})
			}
			return c.Flush()
		}); err != nil {
			t.Fatal(err)
		}
		s.wait <- struct{}{}
		s.expect(t, "missed")
		s.wait <- struct{}{}
		for deadline := time.After(pace.Far()); ; {
			select {
			case got := <-s.told:
				if got == "missed" {
					return
				}
			case <-deadline:
				t.Fatal("what was lost was not told")
			}
		}
	})
}

func TestMonitorThatCannotRead(t *testing.T) {
	node := netlab.Start(t).Node("node")
	if err := node.Do(func() error {
		m, err := NewMonitor()
		if err != nil {
			return err
		}
		m.listener.Close()
		if err := m.Run(context.Background()); err == nil {
			t.Error("reading from a closed socket is no error")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
