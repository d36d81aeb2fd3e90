package nft

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// A chain is read as it is while somebody else writes, which interrupts single readings.
func TestChainIsReadWhileOthersWrite(t *testing.T) {
	node := netlab.Start(t).Node("node")
	id := ID{INet, "web"}
	set := Set{Name: "s", Type: "type inet_proto . inet_service"}
	chain := Chain{Name: "c", Base: "type filter hook input priority 0; policy accept;", Rules: []string{"meta l4proto . th dport @s accept"}}
	inside := func(f func(c *Conn) error) error {
		return node.Do(func() error {
			c, err := Open()
			if err != nil {
				return err
			}
			defer c.Close()
			return f(c)
		})
	}
	made := inside(func(c *Conn) error {
		changes := &Transaction{}
		changes.AddTable(id, "")
		changes.AddSet(id, set)
		changes.RefillChain(id, chain)
		return c.Run(changes)
	})
	if made != nil {
		t.Fatal(made)
	}
	var enough atomic.Bool
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			err := inside(func(c *Conn) error {
				one := []Element{{Key: string(Key(nil).Protocol(6).Port(uint16(1 + i)))}}
				for !enough.Load() {
					add, remove := &Transaction{}, &Transaction{}
					add.AddElements(id, set, slices.Values(one))
					remove.DeleteElements(id, set, slices.Values(one))
					for _, changes := range []*Transaction{add, remove} {
						if err := c.Run(changes); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	read := inside(func(c *Conn) error {
		interrupted := 0
		_, err := pace.Await(pace.Far(), func() error {
			there, right, err := c.readChain(id, chain)
			if err == nil && (!there || !right) {
				t.Errorf("there %t, right %t", there, right)
			}
			if err != nil {
				interrupted++
			}
			if there, right, err = c.Chain(id, chain); err != nil || !there || !right {
				t.Errorf("there %t, right %t: %v", there, right, err)
			}
			if interrupted < 20 {
				return ErrInterrupted
			}
			return nil
		})
		return err
	})
	enough.Store(true)
	writers.Wait()
	if read != nil {
		t.Error("too few readings were interrupted: the test tests nothing")
	}
}
