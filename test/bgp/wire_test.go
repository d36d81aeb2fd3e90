package bgp_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/racks"
)

// wire sees what arrives at a router by BGP.
type wire struct {
	fd   int
	done sync.WaitGroup

	mu      sync.Mutex
	awaited map[string]chan time.Time // by the bytes of a network in an UPDATE
}

// watch begins to look at packets from TCP port 179, or to it, that arrive at a router.
func watch(t testing.TB, r *racks.Router) *wire {
	t.Helper()
	w := &wire{awaited: map[string]chan time.Time{}}
	must(t, r.Do(func() (err error) {
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all&0xffff)
		return err
	}))
	must(t, unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	stop := make(chan struct{})
	w.done.Go(func() { w.read(stop) })
	t.Cleanup(func() {
		close(stop)
		w.done.Wait()
		unix.Close(w.fd)
	})
	return w
}

func (w *wire) read(stop chan struct{}) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(w.fd, buffer, 0)
		now := time.Now()
		select {
		case <-stop:
			return
		default:
		}
		link, is := from.(*unix.SockaddrLinklayer)
		if err != nil || !is || link.Pkttype == unix.PACKET_OUTGOING || n < 40 || buffer[0]>>4 != 4 || buffer[9] != unix.IPPROTO_TCP {
			continue
		}
		tcp := buffer[int(buffer[0]&15)*4 : n]
		if binary.BigEndian.Uint16(tcp) != 179 && binary.BigEndian.Uint16(tcp[2:]) != 179 {
			continue
		}
		w.mu.Lock()
		for network, seen := range w.awaited {
			if bytes.Contains(tcp, []byte(network)) {
				seen <- now
				delete(w.awaited, network)
			}
		}
		w.mu.Unlock()
	}
}

// await has the time sent when an UPDATE with an address arrives.
func (w *wire) await(address netip.Addr) <-chan time.Time {
	a := address.As4()
	seen := make(chan time.Time, 1)
	w.mu.Lock()
	w.awaited[string(append([]byte{32}, a[:]...))] = seen
	w.mu.Unlock()
	return seen
}

// How long it takes from a ready endpoint in the API, by the rules, to the UPDATE that
// arrives at a router, at 1,000 Services; and from one that is not ready any more to its
// withdrawal.
func BenchmarkEndpointToWire(b *testing.B) {
	s := newSite(b)
	server, kubeconfig := s.api()
	s.configure(racks.Usual + "announce: {services: [loadBalancer]}\n")
	one, _ := s.upWithPods("--services", "--services-health=", "--services-metrics=", "--kubeconfig", kubeconfig)
	const many = 1_000
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i / 250), byte(1 + i%250)}) }
	// Flows of UDP would be looked for, and forgotten, before routers are told.
	tcp := v1.ProtocolTCP
	put := func(number int, ready bool) {
		e := endpoints(number, one, 80, ready)
		e.Ports[0].Protocol = &tcp
		server.Put(e)
	}
	for i := range many {
		s := web(i, address(i).String())
		s.Spec.Ports[0].Protocol = tcp
		server.Put(s)
		put(i, i%2 == 0)
	}
	await(b, "half of the Services to be announced", func() error {
		text, err := s.A1.Ask("show route count protocol node4")
		if err == nil && !strings.HasPrefix(strings.TrimSpace(text[strings.Index(text, "\n")+1:]), fmt.Sprintf("%d of", many/2+1)) {
			err = fmt.Errorf("it has %s", text)
		}
		return err
	})
	w := watch(b, s.A1)
	took := map[bool][]time.Duration{}
	ready := false
	for i := 0; b.Loop(); i++ {
		if i%many == 0 {
			ready = !ready
		}
		// One that is announced is withdrawn, one that is not is announced.
		number := i % many
		now := (number%2 == 0) != ready
		seen := w.await(address(number))
		begin := time.Now()
		put(number, now)
		select {
		case at := <-seen:
			took[now] = append(took[now], at.Sub(begin))
		case <-time.After(pace.Far()):
			b.Fatalf("nothing is told of %s, ready %v", address(number), now)
		}
	}
	for now, name := range map[bool]string{true: "announced", false: "withdrawn"} {
		all := took[now]
		if len(all) == 0 {
			continue
		}
		slices.Sort(all)
		at := func(percent int) time.Duration {
			return all[min(len(all)-1, len(all)*percent/100)].Round(100 * time.Microsecond)
		}
		b.Logf("%s, %d times: median %s, 90 %% %s, 99 %% %s, most %s", name, len(all), at(50), at(90), at(99), all[len(all)-1].Round(100*time.Microsecond))
		b.ReportMetric(float64(at(50).Microseconds())/1000, name+"-ms")
		b.ReportMetric(float64(at(99).Microseconds())/1000, name+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}
