package nft

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// Elements that others may put into a set are told as such; whatever else comes with them
// is told as a change, and what is one's own is not told.
func TestWatcherOfACommonSet(t *testing.T) {
	node := netlab.Start(t).Node("node")
	id := ID{INet, "kept"}
	common, own := Set{Name: "common", Type: "type inet_service"}, Set{Name: "own", Type: "type inet_service"}
	calls := make(chan string, 100)
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-calls:
			if got != want {
				t.Errorf("told is %q, want %q", got, want)
			}
		case <-time.After(pace.Far()):
			t.Fatalf("%q is not told", want)
		}
	}
	one := func(port uint16) func(func(Element) bool) {
		return of([]Element{{Key: string(Key(nil).Port(port)[:2])}})
	}
	err := node.Do(func() error {
		mine, err := Open()
		if err != nil {
			return err
		}
		defer mine.Close()
		others, err := Open()
		if err != nil {
			return err
		}
		defer others.Close()
		m, err := NewMonitor(&Watcher{
			Tables: []ID{id}, Own: func() uint32 { return mine.socket.Port }, Changed: func() { calls <- "changed" },
			Common: []string{common.Name}, Added: func() { calls <- "added" },
		})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		expect("changed") // it may have been before
		make := &Transaction{}
		make.AddTable(id, "")
		make.AddSet(id, common)
		make.AddSet(id, own)
		if err := others.Run(make); err != nil {
			return err
		}
		expect("changed")
		for i, c := range []struct {
			by     *Conn
			change func(*Transaction)
			want   []string
		}{
			{mine, func(t *Transaction) { t.AddElements(id, common, one(1)); t.AddElements(id, own, one(1)) }, nil},
			{others, func(t *Transaction) { t.AddElements(id, common, one(2)) }, []string{"added"}},
			{others, func(t *Transaction) { t.DeleteElements(id, common, one(2)) }, []string{"added"}},
			{others, func(t *Transaction) { t.AddElements(id, own, one(3)) }, []string{"changed"}},
			{others, func(t *Transaction) { t.AddElements(id, own, one(4)); t.AddElements(id, common, one(4)) }, []string{"changed", "added"}},
			{others, func(t *Transaction) { t.AddTable(ID{INet, "another"}, "") }, nil},
			{others, func(t *Transaction) { t.DeleteTable(id) }, []string{"changed"}},
		} {
			t := &Transaction{}
			c.change(t)
			if err := c.by.Run(t); err != nil {
				return fmt.Errorf("change %d: %w", i, err)
			}
			for _, want := range c.want {
				expect(want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Rules that count say how many packets.
func TestCounted(t *testing.T) {
	node := netlab.Start(t).Node("node")
	id := ID{INet, "counts"}
	chain := Chain{Name: "output", Base: "type filter hook output priority filter; policy accept;", Rules: []string{
		"udp dport 1 counter drop", "udp dport 2 drop", "udp dport 3 counter drop",
	}}
	node.Test(t, func() {
		c, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if packets, err := c.Counted(id, chain.Name); err != nil || len(packets) > 0 {
			t.Errorf("without a table: %v, %v", packets, err)
		}
		made := &Transaction{}
		made.AddTable(id, "")
		made.RefillChain(id, chain)
		if err := c.Run(made); err != nil {
			t.Fatal(err)
		}
		for _, port := range []int{1, 3, 3, 2} {
			sendTo(port)
		}
		if packets, err := c.Counted(id, chain.Name); err != nil || fmt.Sprint(packets) != "[1 2]" {
			t.Errorf("counted are %v, %v", packets, err)
		}
		// What was counted is no part of the rule.
		if _, right, err := c.Chain(id, chain); err != nil || !right {
			t.Errorf("the chain is right: %v, %v", right, err)
		}
	})
}

// sendTo sends a datagram to a port of the namespace's own. What the kernel says of it is
// not looked at.
func sendTo(port int) {
	socket, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return
	}
	defer socket.Close()
	_, _ = socket.Write([]byte("x"))
}
