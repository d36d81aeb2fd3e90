package plugin

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// both are rates of 16 and 8 Mbit/s with bursts of some packets.
var both = map[string]any{"ingressRate": 16_000_000, "ingressBurst": 160_000, "egressRate": 8_000_000, "egressBurst": 160_000}

// asked is the same by way of the runtime.
func asked(bandwidth map[string]any) map[string]any {
	return map[string]any{"runtimeConfig": map[string]any{"bandwidth": bandwidth}}
}

// queue returns what an interface sends with, or nil.
func queue(t *testing.T, space *netlab.Namespace, link string) netlink.Qdisc {
	t.Helper()
	l, err := space.Netlink().LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	all, err := space.Netlink().QdiscList(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range all {
		if q.Attrs().Parent == netlink.HANDLE_ROOT && (q.Type() == "tbf" || q.Type() == "htb") {
			return q
		}
	}
	return nil
}

// bits is the rate of a token bucket, 0 where there is none.
func bits(q netlink.Qdisc) uint64 {
	if tbf, is := q.(*netlink.Tbf); is {
		return 8 * tbf.Rate
	}
	return 0
}

// Each direction is held by itself, by key or by the runtime; CHECK finds it as it
// should be, and DEL leaves nothing.
func TestBandwidthIsWhatIsAskedFor(t *testing.T) {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	ingress := map[string]any{"ingressRate": 16_000_000, "ingressBurst": 160_000}
	egress := map[string]any{"egressRate": 8_000_000, "egressBurst": 160_000}
	zero := map[string]any{"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0}
	for i, c := range []struct {
		name    string
		config  map[string]any
		in, out uint64
	}{
		{"nothing", nil, 0, 0},
		{"both keys", both, 16_000_000, 8_000_000},
		{"only ingress", ingress, 16_000_000, 0},
		{"only egress", egress, 0, 8_000_000},
		{"zero", zero, 0, 0},
		{"asked for", asked(both), 16_000_000, 8_000_000},
		{"asked for in one direction", asked(egress), 0, 8_000_000},
		{"asked for with zero", asked(zero), 0, 0},
		{"as containerd asks", asked(map[string]any{"ingressRate": 1e10, "ingressBurst": 4294967295}), 10_000_000_000, 0},
		{"asked for beyond the configuration's zero", map[string]any{"ingressRate": 0, "egressRate": 8_000_000, "egressBurst": 160_000,
			"runtimeConfig": map[string]any{"bandwidth": both}}, 0, 8_000_000},
		{"as little as upstream's test", map[string]any{"ingressRate": 8, "ingressBurst": 8, "egressRate": 16, "egressBurst": 9}, 8, 16},
	} {
		for _, version := range []string{"0.3.0", "0.4.0", "1.0.0", "1.1.0"} {
			t.Run(c.name+" "+version, func(t *testing.T) {
				s.t = t
				s.config["cniVersion"] = version
				id := fmt.Sprintf("c%d-%s", i, version)
				pod := s.lab.Pod(id)
				result, err := s.run(call{verb: "ADD", container: id, netns: pod.Path, config: c.config})
				if err != nil {
					t.Fatal(err)
				}
				if len(result.Interfaces) != 2 {
					t.Errorf("result has interfaces %v: there is none but the pair", result.Interfaces)
				}
				in, out := bits(queue(t, s.node.Namespace, result.Interfaces[0].Name)), bits(queue(t, pod, "eth0"))
				if in != c.in || out != c.out {
					t.Errorf("held to %d and %d bits per second, want %d and %d", in, out, c.in, c.out)
				}
				if version >= "0.4" {
					check := map[string]any{"prevResult": s.previous(result, version)}
					for k, v := range c.config {
						check[k] = v
					}
					if _, err := s.run(call{verb: "CHECK", container: id, netns: pod.Path, config: check}); err != nil {
						t.Errorf("CHECK: %v", err)
					}
				}
				s.mustDel(id, pod.Path)
				s.checkNothingLeft("DEL")
			})
		}
	}
}

// previous is a result as the runtime gives it back.
func (s *stage) previous(result *current.Result, version string) any {
	s.t.Helper()
	converted, err := result.GetAsVersion(version)
	if err != nil {
		s.t.Fatal(err)
	}
	return converted
}

// CHECK says what of it is gone or different, on either side; Restore makes the
// host's side again.
func TestBandwidthThatSomebodyChanged(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	pod := s.lab.Pod("a")
	result, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, config: both})
	if err != nil {
		t.Fatal(err)
	}
	host := result.Interfaces[0].Name
	check := func() string {
		t.Helper()
		_, err := s.run(call{verb: "CHECK", container: "a", netns: pod.Path, config: map[string]any{"prevResult": result}})
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if found := check(); found != "" {
		t.Fatal(found)
	}
	change := func(space *netlab.Namespace, link string, f func(h *netlink.Handle, q netlink.Qdisc) error) {
		t.Helper()
		if err := f(space.Netlink(), queue(t, space, link)); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(h *netlink.Handle, q netlink.Qdisc) error { return h.QdiscDel(q) }
	quicken := func(h *netlink.Handle, q netlink.Qdisc) error {
		q.(*netlink.Tbf).Rate *= 2
		return h.QdiscChange(q)
	}
	for _, c := range []struct {
		what string
		how  func(*netlink.Handle, netlink.Qdisc) error
		want string
	}{
		{"removed", remove, "no qdisc instead of the tbf"},
		{"changed", quicken, "rate 4000000 instead of 2000000 bytes per second"},
	} {
		change(s.node.Namespace, host, c.how)
		if found := check(); !strings.Contains(found, c.want) || !strings.Contains(found, "tc qdisc replace dev "+host) {
			t.Errorf("%s on the host: CHECK says %q, want %q and the command", c.what, found, c.want)
		}
		if repairs := s.restore(); len(repairs) != 1 || !strings.HasPrefix(repairs[0], "tc qdisc replace dev "+host) {
			t.Errorf("%s on the host: mended %q", c.what, repairs)
		}
		if found := check(); found != "" {
			t.Errorf("%s on the host, and mended: %s", c.what, found)
		}
	}
	change(pod, "eth0", remove)
	if found := check(); !strings.Contains(found, "pod interface eth0 has no qdisc") {
		t.Errorf("removed in the pod: CHECK says %q", found)
	}
	s.mustDel("a", pod.Path)
	s.checkNothingLeft("DEL")
}

// What cannot be is refused before anything is changed.
func TestBadBandwidthChangesNothing(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	pod := s.lab.Pod("a")
	for _, config := range []map[string]any{
		{"ingressRate": 0, "ingressBurst": 8},
		asked(map[string]any{"egressRate": -1, "egressBurst": 8}),
		{"ingressRate": 8, "ingressBurst": 1 << 35},
		{"ingressRate": 8, "ingressBurst": 8, "unshapedSubnets": []string{"hello"}},
	} {
		steps := 0
		_, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, config: config, step: func(string) error { steps++; return nil }})
		if code(err) != 7 || steps > 0 {
			t.Errorf("%v: error %v after %d changes", config, err, steps)
		}
	}
	s.checkNothingLeft("refused ADDs")
}

// way is one of the two that traffic with a pod goes, and the interface where it is held.
type way struct {
	from, to *netlab.Namespace
	at       *current.Result
	space    *netlab.Namespace
	link     string
}

// bothWays are those between a pod with rates and one without.
func (s *stage) bothWays(pod *netlab.Namespace, result *current.Result, other *netlab.Namespace, free *current.Result) []way {
	return []way{
		{other, pod, result, s.node.Namespace, result.Interfaces[0].Name},
		{pod, other, free, pod, "eth0"},
	}
}

// What goes to the pod and what it sends passes the token buckets, and more than the
// burst at once has to wait there.
func TestBandwidthHoldsTraffic(t *testing.T) {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	pod, other := s.lab.Pod("a"), s.lab.Pod("b")
	result, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, config: both})
	if err != nil {
		t.Fatal(err)
	}
	free := s.mustAdd("b", other)
	const size = 256 << 10
	for _, c := range s.bothWays(pod, result, other, free) {
		for _, ip := range c.at.IPs {
			before := queue(t, c.space, c.link).Attrs().Statistics
			to, _ := netip.AddrFromSlice(ip.Address.IP)
			if _, err := netlab.Transfer(c.from, c.to, to.Unmap(), size, pace.Far()); err != nil {
				t.Fatal(err)
			}
			after := queue(t, c.space, c.link).Attrs().Statistics
			if bytes := after.Basic.Bytes - before.Basic.Bytes; bytes < size {
				t.Errorf("%s: %d bytes of %d passed the token bucket", c.link, bytes, size)
			}
			if after.Queue.Overlimits == before.Queue.Overlimits {
				t.Errorf("%s: nothing had to wait", c.link)
			}
		}
	}
	for _, link := range free.Interfaces {
		space := s.node.Namespace
		if link.Sandbox != "" {
			space = other
		}
		if q := queue(t, space, link.Name); q != nil {
			t.Errorf("%s of the pod without rates has %s", link.Name, q.Type())
		}
	}
}

// With networks, what comes from them or goes to them is held, or all that does not.
func TestBandwidthOfNetworks(t *testing.T) {
	for _, c := range []struct {
		name string
		key  string
		held bool // the traffic with the other pod
		nets []string
	}{
		{"unshaped", "unshapedSubnets", false, []string{"10.1.2.0/24", "fd00:1::/64", "192.168.0.0/16"}},
		{"others unshaped", "unshapedSubnets", true, []string{"192.168.0.0/16", "fd99::/64"}},
		{"shaped", "shapedSubnets", true, []string{"192.168.0.0/16", "10.1.2.0/24", "fd00:1::/64"}},
		{"others shaped", "shapedSubnets", false, []string{"192.168.0.0/16", "fd99::/64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
			pod, other := s.lab.Pod("a"), s.lab.Pod("b")
			config := map[string]any{c.key: c.nets}
			for k, v := range both {
				config[k] = v
			}
			result, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, config: config})
			if err != nil {
				t.Fatal(err)
			}
			free := s.mustAdd("b", other)
			const size = 64 << 10
			for _, d := range s.bothWays(pod, result, other, free) {
				for _, ip := range d.at.IPs {
					to, _ := netip.AddrFromSlice(ip.Address.IP)
					before := throughClass(t, d.space, d.link)
					if _, err := netlab.Transfer(d.from, d.to, to.Unmap(), size, pace.Far()); err != nil {
						t.Fatal(err)
					}
					if held := throughClass(t, d.space, d.link)-before >= size; held != c.held {
						t.Errorf("%s at %s: held is %v, want %v", to, d.link, held, c.held)
					}
				}
			}
			if _, err := s.run(call{verb: "CHECK", container: "a", netns: pod.Path, config: map[string]any{"prevResult": result}}); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			s.mustDel("a", pod.Path)
			s.mustDel("b", other.Path)
			s.checkNothingLeft("DEL")
		})
	}
}

// throughClass is how many bytes have passed the class that holds them.
func throughClass(t *testing.T, space *netlab.Namespace, link string) uint64 {
	t.Helper()
	l, err := space.Netlink().LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	classes, err := space.Netlink().ClassList(l, 0)
	if err != nil || len(classes) != 1 {
		t.Fatalf("%s has classes %v: %v", link, classes, err)
	}
	return classes[0].Attrs().Statistics.Basic.Bytes
}

// What a plugin before made stays in the result, and no rate adds to it.
func TestBandwidthLeavesTheResultAlone(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	pod := s.lab.Pod("a")
	var results []*current.Result
	for _, config := range []map[string]any{nil, both} {
		result, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, config: config})
		if err != nil {
			t.Fatal(err)
		}
		s.mustDel("a", pod.Path)
		for _, i := range result.Interfaces {
			i.Sandbox = ""
		}
		result.IPs = slices.DeleteFunc(result.IPs, func(*current.IPConfig) bool { return true })
		results = append(results, result)
	}
	if !reflect.DeepEqual(results[0], results[1]) {
		t.Errorf("result without rates %v, with rates %v", results[0], results[1])
	}
}

// The record says what the pod is held to, for those who look.
func TestBandwidthIsRecorded(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	pod := s.lab.Pod("a")
	if _, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, config: both}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(s.directory, "attachments", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	raw, err := os.ReadFile(files[0])
	if want := `"bandwidth":{"ingress":{"rate":16000000,"burst":160000},"egress":{"rate":8000000,"burst":160000}}`; err != nil || !strings.Contains(string(raw), want) {
		t.Errorf("record %s, %v lacks %s", raw, err, want)
	}
}
