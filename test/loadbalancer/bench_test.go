package loadbalancer_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// announcements hears who announces addresses on the segment, unasked.
type announcements struct{ fd int }

func (s *site) announcements() *announcements {
	a := &announcements{}
	must(s.t, s.client.Do(func() (err error) {
		a.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(binary.NativeEndian.Uint16([]byte{0x08, 0x06})))
		if err == nil {
			err = unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		}
		return err
	}))
	s.t.Cleanup(func() { unix.Close(a.fd) })
	return a
}

// await waits until an address is announced by a MAC address other than one.
func (a *announcements) await(ip netip.Addr, not string) (mac string, at time.Time) {
	buffer := make([]byte, 128)
	for {
		n, _, err := unix.Recvfrom(a.fd, buffer, 0)
		if err != nil || n < 42 {
			continue
		}
		sender, _ := netip.AddrFromSlice(buffer[28:32])
		target, _ := netip.AddrFromSlice(buffer[38:42])
		if mac := net.HardwareAddr(buffer[22:28]).String(); sender == ip && target == ip && mac != not {
			return mac, time.Now()
		}
	}
}

// filled is a site with two pods and many Services, all of which have addresses. SERVICES is
// how many, if not a thousand.
func filled(b *testing.B) (s *site, count int, first, second *cluster.Pod) {
	count = 1000
	if text := os.Getenv("SERVICES"); text != "" {
		count, _ = strconv.Atoi(text)
	}
	s = newSite(b, 3)
	must(b, os.WriteFile(s.file, []byte(strings.ReplaceAll(pools, "172.30.0.100-172.30.0.199", "10.30.0.0/20")), 0o600))
	first, second = s.pod("n1"), s.pod("n2")
	begin := time.Now()
	for i := range count {
		name := fmt.Sprintf("s%04d", i)
		s.endpoints(name, first, second)
		s.api.Put(single(name, i+1))
	}
	s.held(fmt.Sprintf("s%04d", count-1), 1)
	b.Logf("%d Services had their addresses %s after the first was created", count, time.Since(begin).Round(time.Millisecond))
	time.Sleep(10 * time.Second) // for the announcements that are repeated
	return s, count, first, second
}

// single is a Service of one family.
func single(name string, number int) *v1.Service {
	o := serviceObject(name, number)
	policy := v1.IPFamilyPolicySingleStack
	o.Spec.IPFamilyPolicy, o.Spec.IPFamilies, o.Spec.ClusterIPs = &policy, o.Spec.IPFamilies[:1], o.Spec.ClusterIPs[:1]
	return o
}

// BenchmarkAnnouncement measures the time from the event to the announcement on the wire:
// a Service is created; an endpoint becomes ready on another node (policy Local). There
// are a thousand Services.
//
//	go test ./test/loadbalancer -run=^$ -bench Announcement -benchtime 200x
func BenchmarkAnnouncement(b *testing.B) {
	s, count, first, second := filled(b)
	a := s.announcements()
	var created, moved []time.Duration
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("new%d", i)
		o := single(name, count+i+1)
		o.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
		s.endpoints(name, first)
		begin := time.Now()
		s.api.Put(o)
		ip := netip.AddrFrom4([4]byte{10, 30, byte((count + i) >> 8), byte(count + i)})
		mac, at := a.await(ip, "")
		created = append(created, at.Sub(begin))
		begin = time.Now()
		s.endpoints(name, second)
		_, at = a.await(ip, mac)
		moved = append(moved, at.Sub(begin))
	}
	for _, all := range []struct {
		name  string
		times []time.Duration
	}{{"created", created}, {"moved", moved}} {
		slices.Sort(all.times)
		for _, percent := range []int{50, 90, 99, 100} {
			at := all.times[min(len(all.times)-1, len(all.times)*percent/100)]
			b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("%s-p%d-ms", all.name, percent))
		}
	}
}

// BenchmarkConsumption says what the agents take while nothing happens, without Services and
// with a thousand.
//
//	go test ./test/loadbalancer -run=^$ -bench Consumption -benchtime 1x
func BenchmarkConsumption(b *testing.B) {
	without := newSite(b, 3)
	without.Eventually("all to be able to answer", func() error { return without.members(3) })
	b.Logf("without Services: %s", without.consumption(10*time.Second))
	with, count, _, _ := filled(b)
	for b.Loop() {
		b.Logf("with %d: %s", count, with.consumption(30*time.Second))
	}
}

// consumption is what each agent takes in a time in which nothing happens.
func (s *site) consumption(of time.Duration) string {
	ticks := func(pid int) (sum int) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		must(s.t, err)
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
		for _, f := range fields[11:13] {
			n, _ := strconv.Atoi(f)
			sum += n
		}
		return sum
	}
	before := map[string]int{}
	for _, n := range s.Nodes {
		before[n.Name] = ticks(n.Pid())
	}
	time.Sleep(of)
	text := ""
	for _, n := range s.Nodes {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.Pid()))
		must(s.t, err)
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		rss, _, _ := strings.Cut(rest, "\n")
		text += fmt.Sprintf("%s %.2f %% of a processor, %s; ", n.Name, float64(ticks(n.Pid())-before[n.Name])/of.Seconds(), strings.TrimSpace(rss))
	}
	return text
}
