package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// The receiver's ports: one that some may reach, one that nobody may, and one that all may.
const (
	somebodys, nobodys, everybodys = 80, 81, 82
)

// sender is a pod, and where it is refused what it may not.
type sender struct {
	*cluster.Pod
	may       uint16 // besides the port that all may reach; 0 for no other one
	refused   uint16
	by        *cluster.Pod
	direction string
}

// Nothing gets around a policy in fragments or behind extension headers, and what is
// allowed arrives in them: from pods on the same node and on another one, refused by the
// receiver's policies and by the sender's.
func TestFragmentsAndExtensionHeaders(t *testing.T) {
	s := newSite(t, cluster.Dual, 2)
	n1, n2 := s.Node("n1"), s.Node("n2")
	web := s.start(n1, "shop", "web", "app: web")
	good, bad, near, mute := s.start(n2, "shop", "good", "app: good"), s.start(n2, "shop", "bad", "app: bad"), s.start(n1, "shop", "near", "app: bad"), s.start(n2, "shop", "mute", "app: good, mute: always")
	s.write("web", policy("shop", "web", fmt.Sprintf("{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: good}}}], ports: [{port: %d}, {port: %[1]d, protocol: UDP}]}, {ports: [{port: %d, protocol: UDP}]}]}", somebodys, everybodys)))
	s.write("mute", policy("shop", "mute", fmt.Sprintf("{podSelector: {matchLabels: {mute: always}}, policyTypes: [Egress], egress: [{ports: [{port: %d, protocol: UDP}]}]}", everybodys)))
	r := s.receive(web)
	for _, from := range []sender{
		{good, somebodys, nobodys, web, "ingress"},
		{bad, 0, somebodys, web, "ingress"},
		{near, 0, somebodys, web, "ingress"},
		{mute, 0, somebodys, mute, "egress"},
	} {
		usual := shape{name: "a usual datagram", protocol: unix.IPPROTO_UDP, size: 64}
		for _, ipv6 := range []bool{false, true} {
			s.Eventually(from.Name+" is refused", func() error { return r.refused(usual, from, ipv6) })
			for _, one := range shapes {
				if family := map[bool]string{false: "IPv4", true: "IPv6"}[ipv6]; one.only != "" && one.only != family {
					continue
				}
				what := fmt.Sprintf("%s from %s, IPv6 %t", one.name, from.Name, ipv6)
				if err := r.refused(one, from, ipv6); err != nil {
					t.Errorf("%s: to a port that is refused: %v", what, err)
				}
				for _, port := range []uint16{from.may, everybodys} {
					if port == 0 || one.discarded || port == everybodys && one.protocol != unix.IPPROTO_UDP {
						continue
					}
					s.Eventually(what+": arrival", func() error { return r.allowed(one, from, ipv6, port) })
				}
			}
		}
	}
}

// receiver is a pod that sees what comes, and has sockets of UDP.
type receiver struct {
	*cluster.Pod
	site    *site
	frames  *os.File
	sockets map[uint16]*net.UDPConn
	number  int // of what was sent last
}

func (s *site) receive(p *cluster.Pod) *receiver {
	s.t.Helper()
	r := &receiver{Pod: p, site: s, sockets: map[uint16]*net.UDPConn{}}
	must(s.t, p.Do(func() error {
		every := int(unix.ETH_P_ALL)<<8 | int(unix.ETH_P_ALL)>>8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, every&0xffff)
		if err != nil {
			return err
		}
		r.frames = os.NewFile(uintptr(fd), "what the pod receives")
		for _, port := range []uint16{somebodys, nobodys, everybodys} {
			if r.sockets[port], err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)}); err != nil {
				return err
			}
		}
		return nil
	}))
	s.t.Cleanup(func() {
		r.frames.Close()
		for _, socket := range r.sockets {
			socket.Close()
		}
	})
	return r
}

// send sends something with the next number to a port, and something usual after it that
// all may send. This thread, which ends with Do, stays on one processor, which has one
// queue: nothing overtakes.
func (r *receiver) send(one shape, from *cluster.Pod, ipv6 bool, port uint16) (data []byte, err error) {
	r.number += 2
	data = bytes.Repeat(mark(r.number), one.size/8)
	to := r.Address(ipv6)
	return data, from.Do(func() error {
		if err := netlab.OnOneProcessor(); err != nil {
			return err
		}
		if err := one.send(from.Address(ipv6), netip.AddrPortFrom(to, port), r.number, data); err != nil {
			return err
		}
		return shape{}.send(from.Address(ipv6), netip.AddrPortFrom(to, everybodys), r.number+1, mark(r.number+1))
	})
}

// until reports whether the pod has seen anything of the last number when it sees what was
// sent after that.
func (r *receiver) until() (seen bool, err error) {
	must(r.site.t, r.frames.SetReadDeadline(time.Now().Add(5*time.Second)))
	for buffer := make([]byte, 64<<10); ; {
		n, err := r.frames.Read(buffer)
		switch {
		case err != nil:
			return seen, fmt.Errorf("waiting for what was sent last: %w", err)
		case bytes.Contains(buffer[:n], mark(r.number)):
			seen = true
		case bytes.Contains(buffer[:n], mark(r.number+1)):
			return seen, nil
		}
	}
}

// refused sends to the port that the sender may not reach: nothing comes, and it is counted.
func (r *receiver) refused(one shape, from sender, ipv6 bool) error {
	before := refusedOf(r.site.t, from)
	var seen bool
	_, err := pace.Await(pace.Far(), func() error { // what was sent last may be lost
		if _, err := r.send(one, from.Pod, ipv6, from.refused); err != nil {
			return err
		}
		came, err := r.until()
		seen = seen || came
		return err
	})
	switch {
	case err != nil:
		return err
	case seen:
		return errors.New("it comes")
	case one.discarded:
		return nil
	}
	if now := refusedOf(r.site.t, from); now <= before {
		return fmt.Errorf("the packets that %s refuses were %d, and are %d", from.by.Name, before, now)
	}
	return nil
}

// allowed sends to a port that the sender may reach: it comes, as it was.
func (r *receiver) allowed(one shape, from sender, ipv6 bool, port uint16) error {
	data, err := r.send(one, from.Pod, ipv6, port)
	if err != nil {
		return err
	}
	seen, err := r.until()
	switch {
	case err != nil:
		return err
	case !seen:
		return errors.New("nothing comes")
	case one.protocol != unix.IPPROTO_UDP:
		return nil
	}
	must(r.site.t, r.sockets[port].SetReadDeadline(time.Now().Add(5*time.Second)))
	for buffer := make([]byte, 64<<10); ; {
		n, err := r.sockets[port].Read(buffer)
		if err != nil || bytes.Equal(buffer[:n], data) {
			return err
		}
	}
}

// refusedOf is how many packets were refused where a sender is refused.
func refusedOf(t *testing.T, from sender) uint64 {
	t.Helper()
	answer, err := from.by.Node.Flatnetd("status", "policies", "-o", "json")
	must(t, err)
	var all struct {
		Pods []struct {
			Pod        string
			Directions []struct {
				Direction string
				Refused   uint64
			}
		}
	}
	must(t, json.Unmarshal([]byte(answer), &all))
	for _, p := range all.Pods {
		for _, d := range p.Directions {
			if p.Pod == from.by.Space+"/"+from.by.Name && d.Direction == from.direction {
				return d.Refused
			}
		}
	}
	return 0
}
