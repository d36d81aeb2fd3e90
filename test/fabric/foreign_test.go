package fabric_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// foreign makes what others have on a node, and what looks like ours.
const foreign = `set -e
ip link add bridge9 type bridge
ip link set bridge9 up
ip addr add 10.9.0.1/24 dev bridge9
ip addr add fd00:9::1/64 dev bridge9 nodad
ip route add 10.10.0.0/16 via 10.9.0.2
ip route add 10.11.0.0/16 via 10.9.0.2 proto 71
ip route add 10.12.0.0/16 via 10.9.0.2 proto bird metric 1073741824
ip route add blackhole 10.13.0.0/16 proto static
ip -6 route add fd00:10::/64 via fd00:9::2 proto static
ip route add 10.14.0.0/16 via 10.9.0.2 table 70 proto static
ip route add 10.15.0.0/16 via 10.9.0.2 table 71 proto 70
ip rule add from 10.9.0.0/24 lookup 99 priority 100
ip rule add from 10.9.1.0/24 lookup 70 priority 7070 protocol static
ip -6 rule add from fd00:9::/64 lookup 99 priority 7071
ip link add vxlan9 address 02:00:00:00:00:09 type vxlan id 9 dstport 4790 nolearning
ip link set vxlan9 addrgenmode none up
ip addr add 10.16.0.0/32 dev vxlan9
bridge fdb add 02:00:00:00:00:10 dev vxlan9 dst 192.0.2.10 self permanent
ip neigh add 10.16.1.0 lladdr 02:00:00:00:00:10 dev vxlan9 nud permanent
ip link add veth0123456789a type veth peer name veth0123456789b
ip link set veth0123456789a group 71 up
ip link set veth0123456789b alias flatnet group 70 up
# The kernel takes its time to say that they transmit.
for v in veth0123456789a veth0123456789b; do until ip link show $v | grep -q "state UP"; do :; done; done
nft -f - <<X
add table ip nat
add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }
add rule ip nat POSTROUTING ip saddr 10.9.0.0/24 masquerade
add table inet filter
add set inet filter flatnet { type ipv4_addr; }
add element inet filter flatnet { 192.0.2.1 }
add chain inet filter forward { type filter hook forward priority 0; policy accept; }
add rule inet filter forward ip daddr @flatnet drop
add table inet flatnet2
add chain inet flatnet2 postrouting { type nat hook postrouting priority 99; }
add rule inet flatnet2 postrouting ip saddr 10.9.0.0/24 accept
add table bridge flatnet
X
`

// kernelDefaults are what flatnetd has to change of a node's sysctls, and never
// takes back: with them set before, listings show the same before and after.
const kernelDefaults = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"

// files lists what is below directories.
func files(t *testing.T, directories ...string) string {
	t.Helper()
	var all []string
	for _, d := range directories {
		must(t, filepath.WalkDir(d, func(path string, _ os.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			all = append(all, path)
			return err
		}))
	}
	return strings.Join(all, "\n")
}

// TestForeignObjectsStay: whatever flatnetd makes, repairs and removes, and
// however the cluster changes, what others have is not touched. `flatnetd
// cleanup` removes all that flatnet made, pods' interfaces included, and the
// node is as it was.
func TestForeignObjectsStay(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[2], cluster.Dual)
	n := s.Node("n1")
	get(n.Output("sh", "-ec", kernelDefaults))(t)
	get(n.Output("sh", "-ec", foreign))(t)
	for _, d := range []string{n.BinDir, n.ConfDir} {
		must(t, os.MkdirAll(d, 0o755))
		must(t, os.WriteFile(filepath.Join(d, "other"), []byte("somebody else's"), 0o755))
		must(t, os.WriteFile(filepath.Join(d, "99-other.conflist"), []byte("{}"), 0o644))
	}
	before, disk := everything(t, n), files(t, n.BinDir, n.ConfDir)
	s.Start()
	one, three := placePod(t, n, "one"), placePod(t, s.Node("n3"), "three")
	for _, ipv6 := range s.families.Each() {
		one.reaches(t, three, ipv6)
	}
	// What is missing of the listing from before was somebody else's.
	intact := func(when string) {
		t.Helper()
		now := strings.Split(everything(t, n), "\n")
		for line := range strings.SplitSeq(before, "\n") {
			if !slices.Contains(now, line) {
				t.Errorf("after %s, this is gone: %s", when, line)
			}
		}
	}
	intact("start")
	get(n.Output("sh", "-c", "ip route flush table main proto 70; ip link del flatnet.vx; nft delete table inet flatnet; true"))(t)
	one.awaitReach(t, three, false)
	intact("damage")
	s.Node("n2").PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.245.2.0/24")}
	s.Remove(s.Node("n3"))
	s.WriteNodes()
	awaitPeers(t, n, 1)
	intact("change")
	n.Restart("--fabric", "vxlan")
	intact("restart")

	if out, err := n.Flatnetd("cleanup"); err == nil {
		t.Errorf("cleanup beside a running flatnetd succeeded: %s", out)
	}
	n.Stop()
	out := get(n.Flatnetd("cleanup"))(t)
	if now := everything(t, n); now != before {
		t.Errorf("after cleanup, which says\n%s\nthe node is not as it was:%s", out, differing(before, now))
	}
	if now := files(t, n.BinDir, n.ConfDir, n.StateDir); now != disk {
		t.Errorf("after cleanup, which says\n%s\nfiles are not as they were:%s", out, differing(disk, now))
	}
	for _, what := range []string{one.pod.HostInterface, "flatnet.vx", n.Conflist(), filepath.Join(n.BinDir, "flatnet"), "10.245.2.0/24"} {
		if !strings.Contains(out, what) {
			t.Errorf("cleanup does not say that it removed %s:\n%s", what, out)
		}
	}
	if out := get(n.Flatnetd("cleanup"))(t); out != "nothing of flatnet's was there\n" {
		t.Errorf("a second cleanup says: %s", out)
	}
}

// TestStaleObjects: what an earlier flatnetd made, for nodes that were removed
// while none was running or in another mode, is removed at start.
func TestStaleObjects(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[2], cluster.Dual)
	n := s.Node("n1")
	s.Start()
	placePod(t, n, "pod")
	n.Stop()
	n2, n3 := s.Node("n2"), s.Node("n3")
	s.Remove(n2)
	s.Remove(n3)
	s.WriteNodes()
	n.StartAgain()
	n.WaitReady()
	text := ours(t, n)
	for _, stale := range []string{"10.244.2.", "10.244.3.", "fd00:244:2:", "fd00:244:3:", "172.30.0.2", "172.30.1.3", "fd00:30::2", "fd00:30:1::3", "lookup 70", "dst "} {
		if strings.Contains(text, stale) {
			t.Errorf("%q is still there:\n%s", stale, text)
		}
	}
	// Without others, another mode and other numbers.
	for _, mode := range []string{"vxlan", "direct", "none"} {
		n.Restart("--fabric", mode, "--vxlan-id", "71")
		text := ours(t, n)
		if has := strings.Contains(text, "vxlan id 71"); has != (mode == "vxlan") {
			t.Errorf("fabric %s has a VXLAN device with VNI 71: %v", mode, has)
		}
		if strings.Contains(text, "vxlan id 70") {
			t.Errorf("fabric %s still has the VXLAN device with VNI 70", mode)
		}
	}
	if routes := get(list(n, "ip route show proto 70 type unreachable; ip -6 route show proto 70 | grep unreachable; true"))(t); routes != "" {
		t.Errorf("fabric none still has routes: %s", routes)
	}
}
