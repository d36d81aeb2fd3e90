package service_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/service"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// load is clients that connect all the time.
type load struct {
	stop  chan struct{}
	done  sync.WaitGroup
	count atomic.Int64
	mu    sync.Mutex
	errs  []error
}

// startLoad has a few clients in each of these places connect to an address.
func startLoad(to netip.AddrPort, from ...place) *load {
	l := &load{stop: make(chan struct{})}
	for _, p := range from {
		for range 2 {
			l.done.Go(func() {
				for {
					select {
					case <-l.stop:
						return
					default:
					}
					if _, err := ask(p.Namespace, "tcp", to); err != nil {
						l.mu.Lock()
						l.errs = append(l.errs, fmt.Errorf("%s to %s: %w", p.name, to, err))
						l.mu.Unlock()
					}
					l.count.Add(1)
				}
			})
		}
	}
	return l
}

// after waits for so many more connections.
func (l *load) after(t *testing.T, more int64) {
	t.Helper()
	target := l.count.Load() + more
	if _, err := pace.Await(pace.Far(), func() error {
		if count := l.count.Load(); count < target {
			return fmt.Errorf("clients do not get on: %d connections more, want %d", more-(target-count), more)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// end stops the clients and fails the test if one connection failed.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	for i, err := range l.errs {
		if i == 5 {
			break
		}
		t.Error(err)
	}
	if len(l.errs) > 0 {
		t.Errorf("%d of %d connections failed", len(l.errs), l.count.Load())
	}
}

// TestEndpointsUnderLoad: no connection fails while endpoints come and go, none
// reaches one that is gone, and established ones are left alone.
func TestEndpointsUnderLoad(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(describe("direct", ipv6), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "direct", ipv6)
			s.apply(s.service("a1", "a2", "b1"))
			to := at(s.clusterIP(), 80)
			established := map[string]*conversation{}
			for len(established) < 3 {
				c, err := dial(s.client.Namespace, "tcp", to, timeout)
				must(t, err)
				defer c.Close()
				a, err := c.ask(timeout)
				must(t, err)
				established[a.server] = c
			}
			l := startLoad(to, s.outside(), s.node("n1"), s.pod("a2"), s.pod("b1"))
			for round := range 6 {
				gone := []string{"a1", "a2", "b1"}[round%3]
				var left []string
				for _, name := range []string{"a1", "a2", "b1"} {
					if name != gone {
						left = append(left, name)
					}
				}
				s.apply(s.service(left...))
				// A connection that was on its way has arrived.
				l.after(t, 20)
				before := s.servers[gone].connections()
				l.after(t, 100)
				if n := s.servers[gone].connections() - before; n > 0 {
					t.Errorf("%d connections reached %s, which is gone", n, gone)
				}
				s.apply(s.service("a1", "a2", "b1"))
				l.after(t, 50)
				for name, c := range established {
					if a, err := c.ask(timeout); err != nil || a.server != name {
						t.Errorf("an established connection to %s: %v, %v", name, a, err)
					}
				}
			}
			l.end(t)
		})
	}
}

// TestRestartUnderLoad: flatnetd is killed, and a new one takes over what the last
// one left: no connection is lost; neither is one when many Services come at the
// same time.
func TestRestartUnderLoad(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(describe("direct", ipv6), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "direct", ipv6)
			s.apply(s.service("a1", "b1"))
			to := at(s.clusterIP(), 80)
			established, err := dial(s.client.Namespace, "tcp", to, timeout)
			must(t, err)
			defer established.Close()
			l := startLoad(to, s.outside(), s.pod("a2"), s.node("n1"))
			for range 3 {
				for _, n := range s.Nodes {
					n.Kill()
				}
				l.after(t, 20)
				for _, n := range s.Nodes {
					n.StartAgain()
				}
				for _, n := range s.Nodes {
					n.WaitReady()
				}
				l.after(t, 20)
			}
			var many []service.Service
			for i := range 2000 {
				many = append(many, service.Service{
					Name: service.Name{Namespace: "many", Name: fmt.Sprint(i)}, Ports: []service.Port{{Name: "tcp", Protocol: service.TCP, Port: 80}},
					ClusterIPs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf(pick(ipv6, "10.97.%d.%d", "fd00:96::2:%x%02x"), i>>8, i&0xff))}, Slices: s.service("a1", "b1").Slices,
				})
			}
			s.apply(many...)
			l.after(t, 20)
			for _, v := range many {
				s.control.forget(v.Name)
			}
			s.reached()
			l.after(t, 20)
			l.end(t)
			if _, err := established.ask(timeout); err != nil {
				t.Errorf("the established connection: %v", err)
			}
		})
	}
}

// TestRepair: what somebody flushes is back because the kernel tells of it, and
// established connections survive. How long that takes is logged.
func TestRepair(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	s.apply(s.service("a1", "b1"))
	n := s.Node("n1")
	n.Restart("--fabric", "direct", "--services", "--kubeconfig", s.control.kubeconfig, "--resync", "24h")
	to := at(s.clusterIP(), 80)
	established, err := dial(s.pods["a2"].Namespace, "tcp", to, timeout)
	must(t, err)
	defer established.Close()
	for _, damage := range []string{
		"flush ruleset",
		"delete table ip flatnet-services",
		"flush map ip flatnet-services endpoints-tcp",
		"flush chain ip flatnet-services prerouting",
		"insert rule ip flatnet-services dispatch drop",
	} {
		before := n.Metrics()["flatnet_service_repairs_total"]
		if _, err := n.Output("nft", damage); err != nil {
			t.Fatal(err)
		}
		// A connection that was dropped is tried again long after the repair, so that a
		// new one is better; but one may need its time.
		patience := 100 * time.Millisecond
		took, err := pace.Await(pace.Far(), func() error {
			c, err := dial(s.pods["a2"].Namespace, "tcp", to, patience)
			if err == nil {
				c.Close()
			}
			patience = min(patience*3/2, 5*time.Second)
			return err
		})
		if err != nil {
			t.Fatalf("%s: not repaired: %v", damage, err)
		}
		t.Logf("%s: repaired after %s", damage, took.Round(time.Millisecond))
		s.Eventually("the repair to be counted", func() error {
			if after := n.Metrics()["flatnet_service_repairs_total"]; after <= before {
				return fmt.Errorf("%.0f repairs, and before there were %.0f", after, before)
			}
			return nil
		})
		if _, err := established.ask(timeout); err != nil {
			t.Errorf("%s: the established connection: %v", damage, err)
		}
	}
}

// TestStaleFlows: who goes on sending UDP from the same port reaches another
// endpoint when his is gone, and the first one that there is.
func TestStaleFlows(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(describe("direct", ipv6), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "direct", ipv6)
			for _, from := range []place{s.pod("a2"), s.node("n1"), s.outside()} {
				for _, to := range []netip.AddrPort{at(s.clusterIP(), 80), s.external()[0], s.external()[1]} {
					s.staleFlow(from, to)
				}
			}
		})
	}
}

func (s *site) staleFlow(from place, to netip.AddrPort) {
	t := s.t
	t.Helper()
	s.apply(s.service("a1", "b1"))
	c, err := dial(from.Namespace, "udp", to, timeout)
	must(t, err)
	defer c.Close()
	first := s.persist(c, from, to)
	for range 5 {
		if again := s.persist(c, from, to); again != first {
			t.Errorf("%s to %s: was sent to %s, and then to %s", from.name, to, first, again)
		}
	}
	other := map[string]string{"a1": "b1", "b1": "a1"}[first]
	s.apply(s.service(other))
	if now := s.persist(c, from, to); now != other {
		t.Errorf("%s to %s: was sent to %s, which is gone, and now to %s", from.name, to, first, now)
	}
	// Nobody is left: refused.
	s.apply(s.service())
	if a, err := c.ask(silence); err == nil {
		t.Errorf("%s to %s: %s answers, which is gone", from.name, to, a.server)
	}
	s.apply(s.service(first))
	if now := s.persist(c, from, to); now != first {
		t.Errorf("%s to %s: was sent to %s, not %s", from.name, to, now, first)
	}
	// It ends, and still serves: a flow may stay.
	v := s.service(first)
	v.Slices[0].Endpoints[0].Ready, v.Slices[0].Endpoints[0].Terminating = false, true
	v.Slices[0].Endpoints = append(v.Slices[0].Endpoints, s.service(other).Slices[0].Endpoints...)
	s.apply(v)
	if now := s.persist(c, from, to); now != first {
		t.Errorf("%s to %s: was sent to %s, and while that ends to %s", from.name, to, first, now)
	}
	// It has ended.
	s.apply(s.service(other))
	if now := s.persist(c, from, to); now != other {
		t.Errorf("%s to %s: was sent to %s, which has ended, and now to %s", from.name, to, first, now)
	}
}

// persist asks until there is an answer: an error that was waiting in the socket is
// of the datagram before.
func (s *site) persist(c *conversation, from place, to netip.AddrPort) string {
	s.t.Helper()
	var last error
	for range 5 {
		a, err := c.ask(timeout)
		if err == nil {
			return a.server
		}
		if last = err; !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EPERM) {
			break
		}
	}
	s.t.Errorf("%s to %s: %v", from.name, to, last)
	return ""
}

// TestBalance: ten thousand connections are spread over ten endpoints as chance
// would.
func TestBalance(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	const endpoints, connections = 10, 10_000
	v := s.service()
	v.Slices[0].Endpoints = nil
	names := map[string]int{}
	for i := range endpoints {
		pod := []string{"a1", "a2", "b1"}[i%3]
		port := uint16(9000 + i)
		name := fmt.Sprintf("%s:%d", pod, port)
		serve(t, s.pods[pod].Namespace, name, at(s.pods[pod].Address(false), port))
		names[name] = 0
		v.Slices = append(v.Slices, service.Slice{
			Name:      name,
			Ports:     []service.SlicePort{{Name: "tcp", Protocol: service.TCP, Port: port}},
			Endpoints: []service.Endpoint{{Address: s.pods[pod].Address(false), Ready: true}},
		})
	}
	s.apply(v)
	answers := make(chan string, connections)
	var clients sync.WaitGroup
	const parallel = 8
	for range parallel {
		clients.Go(func() {
			must(t, s.client.Do(func() error {
				for range connections / parallel {
					name, err := connectHere(at(s.clusterIP(), 80))
					if err != nil {
						return err
					}
					answers <- name
				}
				return nil
			}))
		})
	}
	clients.Wait()
	close(answers)
	for a := range answers {
		names[a]++
	}
	if len(names) != endpoints {
		t.Fatalf("reached %v", names)
	}
	chi, want := 0.0, float64(connections)/endpoints
	for _, n := range names {
		chi += (float64(n) - want) * (float64(n) - want) / want
	}
	// Nine degrees of freedom: more than 40 once in a hundred thousand runs.
	if chi > 40 {
		t.Errorf("chi-square is %.1f: %v", chi, names)
	}
	t.Logf("chi-square is %.1f", chi)
}

// connectHere connects from the calling thread's namespace, and returns who answers.
func connectHere(to netip.AddrPort) (string, error) {
	family, address := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	deadline := syscall.NsecToTimeval(timeout.Nanoseconds())
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &deadline); err != nil {
		return "", err
	}
	if err := syscall.Connect(fd, address); err != nil {
		return "", err
	}
	if _, err := syscall.Write(fd, []byte("?\n")); err != nil {
		return "", err
	}
	buffer := make([]byte, 64)
	n, err := syscall.Read(fd, buffer)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", io.ErrUnexpectedEOF
	}
	name, _, _ := strings.Cut(string(buffer[:n]), " ")
	return name, nil
}
