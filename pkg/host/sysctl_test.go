package host

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestSysctls(t *testing.T) {
	for _, test := range []struct {
		name  string
		needs Needs
		want  string
	}{
		{"nothing", Needs{}, ""},
		{"IPv4 without a tunnel", Needs{IPv4: true, Underlay: []string{"eth0.100"}, Pods: 110, Nodes: 5}, `
			sysctl -w net.ipv4.ip_forward=1
			sysctl -w net.ipv4.conf.eth0/100.forwarding=1
			sysctl -w net.ipv4.conf.eth0/100.rp_filter=2 # if strict
			sysctl -w net.ipv4.neigh.default.gc_thresh3=512 # if less
			sysctl -w net.ipv4.neigh.default.gc_thresh2=256 # if less
			sysctl -w net.ipv4.neigh.default.gc_thresh1=64 # if less`},
		{"IPv6 over an underlay of two interfaces", Needs{IPv6: true, Underlay: []string{"eth0", "eth1"}, Tunnel: "flatnet.vx", Nodes: 5000}, `
			sysctl -w net.ipv6.conf.all.forwarding=1
			sysctl -w net.ipv6.conf.eth0.forwarding=1
			sysctl -w net.ipv6.conf.eth1.forwarding=1
			sysctl -w net.ipv6.conf.flatnet/vx.forwarding=1
			sysctl -w net.ipv4.conf.eth0.rp_filter=2 # if strict
			sysctl -w net.ipv4.conf.eth1.rp_filter=2 # if strict
			sysctl -w net.ipv4.conf.flatnet/vx.rp_filter=2 # if strict
			sysctl -w net.ipv6.neigh.default.gc_thresh3=32768 # if less
			sysctl -w net.ipv6.neigh.default.gc_thresh2=16384 # if less
			sysctl -w net.ipv6.neigh.default.gc_thresh1=4096 # if less`},
		{"Services", Needs{Services: true}, `
			sysctl -w net.netfilter.nf_conntrack_tcp_timeout_close_wait=3600 # if less`},
		{"a mistaken number of pods", Needs{IPv4: true, Pods: 1 << 60}, `
			sysctl -w net.ipv4.ip_forward=1
			sysctl -w net.ipv4.neigh.default.gc_thresh3=4194304 # if less
			sysctl -w net.ipv4.neigh.default.gc_thresh2=2097152 # if less
			sysctl -w net.ipv4.neigh.default.gc_thresh1=524288 # if less`},
	} {
		var got strings.Builder
		for _, s := range Sysctls(test.needs) {
			got.WriteString("\n" + s.String())
		}
		wantText(t, test.name, got.String(), strings.ReplaceAll(test.want, "\t", ""))
	}
}

func TestSysctlRules(t *testing.T) {
	for _, test := range []struct {
		rule       Rule
		found, all int
		needless   bool
	}{
		{Exactly, 1, 0, false}, {Exactly, 2, 0, true},
		{AtLeast, 1, 0, false}, {AtLeast, 2, 0, true}, {AtLeast, 3, 0, true},
		// The kernel goes by the greater one of the two.
		{NotStrict, 0, 0, true}, {NotStrict, 0, 1, false}, {NotStrict, 0, 2, true},
		{NotStrict, 1, 0, false}, {NotStrict, 1, 1, false}, {NotStrict, 1, 2, true},
		{NotStrict, 2, 0, true}, {NotStrict, 2, 1, true}, {NotStrict, 2, 2, true},
	} {
		s := Sysctl{Value: 2, Rule: test.rule}
		if got := s.needless(test.found, test.all); got != test.needless {
			t.Errorf("%s, found %d, all %d: needless is %v", s, test.found, test.all, got)
		}
	}
}

// TestSysctlsRepaired damages every setting of a running kernel by itself.
func TestSysctlsRepaired(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		k := &Keeper{}
		k.Apply(context.Background(), dual())
		wantWell(t, k, dual())
		for _, test := range []struct{ damage, want string }{
			{"net/ipv4/ip_forward=0", `
				sysctl net.ipv4.ip_forward: 0, wanted 1, repaired`},
			{"net/ipv4/conf/eth0/forwarding=0", `
				sysctl net.ipv4.conf.eth0.forwarding: 0, wanted 1, repaired`},
			{"net/ipv4/conf/flatnet.vx/forwarding=0", `
				sysctl net.ipv4.conf.flatnet/vx.forwarding: 0, wanted 1, repaired`},
			{"net/ipv6/conf/all/forwarding=0", `
				sysctl net.ipv6.conf.all.forwarding: 0, wanted 1, repaired`},
			{"net/ipv6/conf/eth0/forwarding=0", `
				sysctl net.ipv6.conf.eth0.forwarding: 0, wanted 1, repaired`},
			{"net/ipv6/conf/flatnet.vx/forwarding=0", `
				sysctl net.ipv6.conf.flatnet/vx.forwarding: 0, wanted 1, repaired`},
			{"net/ipv4/conf/eth0/rp_filter=1", `
				sysctl net.ipv4.conf.eth0.rp_filter: 1, wanted 2, repaired`},
			{"net/ipv4/conf/flatnet.vx/rp_filter=1", `
				sysctl net.ipv4.conf.flatnet/vx.rp_filter: 1, wanted 2, repaired`},
		} {
			setSysctls(t, node, test.damage)
			wantText(t, test.damage, "\n"+text(k.Apply(context.Background(), dual())), strings.ReplaceAll(test.want, "\t", "")+"\n")
			wantWell(t, k, dual())
		}
		wantSysctls(t, node, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1",
			"net/ipv4/conf/eth0/rp_filter=2", "net/ipv4/conf/flatnet.vx/rp_filter=2",
			"net/ipv4/conf/flatnet.vx/forwarding=1", "net/ipv6/conf/flatnet.vx/forwarding=1")
	})
}

// TestStrictByAll: the interfaces have no filter of their own, but that of all
// makes them strict. That of all is for others to set.
func TestStrictByAll(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		k := &Keeper{}
		k.Apply(context.Background(), dual())
		setSysctls(t, node, "net/ipv4/conf/all/rp_filter=1", "net/ipv4/conf/eth0/rp_filter=0", "net/ipv4/conf/flatnet.vx/rp_filter=0",
			"net/ipv4/conf/default/rp_filter=1")
		wantText(t, "strict by all", text(k.Apply(context.Background(), dual())),
			"sysctl net.ipv4.conf.eth0.rp_filter: 0 (strict because of net.ipv4.conf.all.rp_filter=1), wanted 2, repaired\n"+
				"sysctl net.ipv4.conf.flatnet/vx.rp_filter: 0 (strict because of net.ipv4.conf.all.rp_filter=1), wanted 2, repaired\n")
		wantSysctls(t, node, "net/ipv4/conf/all/rp_filter=1", "net/ipv4/conf/default/rp_filter=1",
			"net/ipv4/conf/eth0/rp_filter=2", "net/ipv4/conf/flatnet.vx/rp_filter=2")
		for value, want := range map[string]bool{"0": false, "1": false, "2": true} {
			setSysctls(t, node, "net/ipv4/conf/all/rp_filter="+value)
			if got, err := k.RPFilterAllLoose(); got != want || err != nil {
				t.Errorf("all.rp_filter=%s: loose is %v (%v)", value, got, err)
			}
		}
	})
}

// TestOtherFamilyUntouched: what pods do not use is not switched on.
func TestOtherFamilyUntouched(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		setSysctls(t, node, "net/ipv4/ip_forward=0", "net/ipv6/conf/all/forwarding=0")
		needs := dual()
		needs.IPv6 = false
		(&Keeper{}).Apply(context.Background(), needs)
		wantSysctls(t, node, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=0", "net/ipv6/conf/eth0/forwarding=0")
		setSysctls(t, node, "net/ipv4/ip_forward=0")
		needs = dual()
		needs.IPv4 = false
		(&Keeper{}).Apply(context.Background(), needs)
		wantSysctls(t, node, "net/ipv4/ip_forward=0", "net/ipv6/conf/all/forwarding=1")
	})
}

// root makes a directory with files below proc/sys, "KEY=VALUE" each.
func root(t *testing.T, values ...string) *Keeper {
	t.Helper()
	k := &Keeper{Root: t.TempDir()}
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		path := k.path("/proc/sys/" + key)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// TestNeighbourLimits: a network namespace has no limits of its own, so these
// are files of a directory.
func TestNeighbourLimits(t *testing.T) {
	const base = "net/ipv4/neigh/default/gc_thresh"
	k := root(t, "net/ipv4/ip_forward=1", base+"1=128", base+"2=512", base+"3=1024")
	needs := Needs{IPv4: true, Pods: 110, Nodes: 100}
	wantWell(t, k, needs)
	needs.Nodes = 500
	wantText(t, "more nodes", text(k.Apply(context.Background(), needs)), ""+
		"sysctl net.ipv4.neigh.default.gc_thresh3: 1024, wanted at least 4096, repaired\n"+
		"sysctl net.ipv4.neigh.default.gc_thresh2: 512, wanted at least 2048, repaired\n"+
		"sysctl net.ipv4.neigh.default.gc_thresh1: 128, wanted at least 512, repaired\n")
	for i, want := range []string{"512", "2048", "4096"} {
		raw, err := os.ReadFile(k.path("/proc/sys/" + base + string(rune('1'+i))))
		// A file, unlike a sysctl, keeps what was longer before.
		if err != nil || strings.TrimSpace(string(raw)) != want {
			t.Errorf("gc_thresh%d is %q (%v), want %s", i+1, raw, err, want)
		}
	}
	needs.Nodes = 1
	wantWell(t, k, needs) // never lowered
}

// TestReadOnly is a container's /proc/sys: nothing can be written, all is said.
func TestReadOnly(t *testing.T) {
	k := root(t, "net/ipv4/ip_forward=0", "net/ipv6/conf/all/forwarding=0", "net/ipv6/conf/eth0/forwarding=0",
		"net/ipv6/conf/eth0/accept_ra=1")
	if err := unix.Mount(k.Root, k.Root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(k.Root, unix.MNT_DETACH)
	if err := unix.Mount("", k.Root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	found := k.Apply(context.Background(), Needs{IPv4: true, IPv6: true, Underlay: []string{"eth0"}})
	if len(found) != 4 {
		t.Fatalf("findings:\n%s", text(found))
	}
	for i, want := range []string{"sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv6.conf.eth0.accept_ra=2",
		"sysctl -w net.ipv6.conf.all.forwarding=1", "sysctl -w net.ipv6.conf.eth0.forwarding=1"} {
		if f := found[i]; f.Repaired || f.Problem == "" || !strings.Contains(f.Hint, want) {
			t.Errorf("finding %+v: want a problem, and a hint with %q", f, want)
		}
	}
	if !strings.Contains(found[0].Problem, "read-only") || !strings.Contains(found[0].Hint, "container") {
		t.Errorf("finding %+v does not say that /proc/sys is read-only", found[0])
	}
}

// TestNoIPv6 is a kernel that was booted with ipv6.disable=1.
func TestNoIPv6(t *testing.T) {
	k := root(t, "net/ipv4/ip_forward=1")
	found := k.Apply(context.Background(), Needs{IPv4: true, IPv6: true, Underlay: []string{"eth0"}})
	wantText(t, "no IPv6", text(found),
		"sysctl net.ipv6.conf.all.forwarding: missing, wanted 1, PROBLEM the kernel has no such setting\n")
	if !strings.Contains(found[0].Hint, "ipv6.disable=1") {
		t.Errorf("hint: %s", found[0].Hint)
	}
}
