package measure

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netlink"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// TestClsactOnAnInterfaceInUse measures what an interface loses of what it sends when the
// qdisc clsact is made there, which holds the fast path's filters, and when it is taken
// away. The sender is asked for 10,000 datagrams a second, which emulation may not reach.
func TestClsactOnAnInterfaceInUse(t *testing.T) {
	if testing.Short() {
		t.Skip("with -test.short nothing is measured")
	}
	lab := netlab.Start(t)
	segment := lab.Segment("underlay")
	from, to := lab.Node("from", segment.Port("172.30.0.1/24")), lab.Node("to", segment.Port("172.30.0.2/24"))
	var listener *net.UDPConn
	must(t, to.Do(func() error {
		c, err := (&net.ListenConfig{Control: netlab.Buffered}).ListenPacket(t.Context(), "udp", "172.30.0.2:5000")
		if err == nil {
			listener = c.(*net.UDPConn)
		}
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	var sender net.Conn
	must(t, from.Do(func() (err error) {
		sender, err = net.Dial("udp", "172.30.0.2:5000")
		return err
	}))
	t.Cleanup(func() { sender.Close() })

	var received atomic.Uint64
	last := make(chan uint64, 1000) // numbers of rounds that have come to their ends
	go func() {
		buffer := make([]byte, 100)
		for {
			n, err := listener.Read(buffer)
			if err != nil {
				return
			}
			if n == 8 {
				last <- binary.BigEndian.Uint64(buffer)
				continue
			}
			received.Add(1)
		}
	}()
	// send sends at the rate until stop is closed, and returns how many datagrams.
	send := func(stop <-chan struct{}) (sent uint64) {
		const every = time.Second / 10_000
		for begin := time.Now(); ; {
			select {
			case <-stop:
				return sent
			default:
			}
			if time.Since(begin) < time.Duration(sent)*every {
				continue
			}
			if _, err := sender.Write(make([]byte, 100)); err == nil {
				sent++
			}
		}
	}
	round := uint64(0)
	// lost counts what is lost while something is done, ten times.
	lost := func(do func(*netlink.Socket, int) error) (count int64, rate float64) {
		t.Helper()
		round++
		received.Store(0)
		stop, sent := make(chan struct{}), make(chan uint64, 1)
		begin := time.Now()
		go func() { sent <- send(stop) }()
		comes(t, &received, 0)
		must(t, from.Do(func() error { return onInterface("eth0", do) }))
		comes(t, &received, received.Load())
		close(stop)
		all := <-sent
		rate = float64(all) / time.Since(begin).Seconds()
		// What comes last says that nothing else is on its way.
		_, err := sender.Write(binary.BigEndian.AppendUint64(nil, round))
		must(t, err)
		select {
		case <-last:
		case <-time.After(pace.Far()):
			t.Fatal("the last datagram has not come")
		}
		return int64(all) - int64(received.Load()), rate
	}
	if count, rate := lost(func(*netlink.Socket, int) error { return nil }); count != 0 {
		t.Fatalf("%d datagrams of %.0f a second are lost though nothing is done", count, rate)
	}
	var made, gone, most int64
	var rate float64
	const times = 10
	for range times {
		m, r := lost(kernel.AddClsact)
		g, _ := lost(kernel.RemoveClsact)
		made, gone, most, rate = made+m, gone+g, max(most, m), r
	}
	t.Logf("figure: clsact on an interface in use, datagrams a second: %.0f", rate)
	t.Logf("figure: clsact made, datagrams lost, mean: %.1f", float64(made)/times)
	t.Logf("figure: clsact made, datagrams lost, most: %d", most)
	t.Logf("figure: clsact taken away, datagrams lost, mean: %.1f", float64(gone)/times)
}

func onInterface(name string, do func(*netlink.Socket, int) error) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	const bytes = 64 << 10
	s, err := netlink.Open(unix.NETLINK_ROUTE, bytes)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(s, i.Index)
}

// comes waits until a hundred more have come.
func comes(t *testing.T, received *atomic.Uint64, than uint64) {
	t.Helper()
	_, err := pace.Await(pace.Far(), func() error {
		if now := received.Load(); now < than+100 {
			return fmt.Errorf("%d datagrams have come, which were %d", now, than)
		}
		return nil
	})
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
