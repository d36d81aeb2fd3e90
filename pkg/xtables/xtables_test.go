package xtables

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// entryOf is an entry with a target of this name and data, with as many bytes of
// matches before it.
func entryOf(l layout, matches int, target, data string) []byte {
	const dataSize = 32
	size := l.targetOffset + 24 + matches // room for counters
	entry := make([]byte, size+32+dataSize)
	binary.NativeEndian.PutUint16(entry[l.targetOffset:], uint16(size))
	binary.NativeEndian.PutUint16(entry[l.targetOffset+2:], uint16(len(entry)))
	copy(entry[size+2:], target)
	copy(entry[size+32:], data)
	return entry
}

func TestMain(m *testing.M) { netlab.Main(m) }

func TestEntries(t *testing.T) {
	for _, l := range layouts {
		standard, end := entryOf(l, 0, "", ""), entryOf(l, 0, "ERROR", "ERROR")
		services := slices.Concat(entryOf(l, 0, "ERROR", "KUBE-SERVICES"), entryOf(l, 96, "REJECT", "ERROR"), standard)
		cut := slices.Concat(standard, end[:l.targetOffset])
		beyond := slices.Concat(standard, end)
		binary.NativeEndian.PutUint16(beyond[len(standard)+l.targetOffset+2:], uint16(len(end)+8))
		nowhere := slices.Concat(standard, end)
		binary.NativeEndian.PutUint16(nowhere[l.targetOffset:], 0)
		for name, c := range map[string]struct {
			entries []byte
			want    string
		}{
			"no chain of a user":       {slices.Concat(standard, standard, end), "[]"},
			"two chains":               {slices.Concat(standard, services, entryOf(l, 0, "ERROR", "B"), standard, end), "[KUBE-SERVICES B]"},
			"nothing":                  {nil, "[]"},
			"an entry that is cut off": {cut, fmt.Sprintf("the entry at byte %d of %d is cut off", len(standard), len(cut))},
			"an end beyond the table":  {beyond, fmt.Sprintf("the entry at byte %d of %d has its target at %d and its end at %d", len(standard), len(beyond), len(standard)+l.targetOffset+24, len(beyond)+8)},
			"a target that is nowhere": {nowhere, fmt.Sprintf("the entry at byte 0 of %d has its target at 0 and its end at %d", len(nowhere), len(standard))},
		} {
			chains, err := l.chainsOf(c.entries)
			got := fmt.Sprint(chains)
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("%s, %s: %s, want %s", l.program, name, got, c.want)
			}
		}
	}
}

// requireLegacy skips where the program or the kernel has no iptables-legacy.
func requireLegacy(t *testing.T, ns *netlab.Namespace, l layout) {
	t.Helper()
	if _, err := exec.LookPath(l.program); err != nil {
		t.Skipf("%s is needed: %v", l.program, err)
	}
	if out, err := ns.Output(l.program, "-t", "nat", "-S"); err != nil {
		if !strings.Contains(err.Error(), "can't initialize") {
			t.Fatalf("%s: %s", err, out)
		}
		t.Skipf("the kernel has no table nat of %s: %v", l.program, err)
	}
}

// TestChains compares what is read with what iptables-legacy made.
func TestChains(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		l := layouts[0]
		if ipv6 {
			l = layouts[1]
		}
		t.Run(l.program, func(t *testing.T) {
			lab := netlab.Start(t)
			requireLegacy(t, lab.Namespace("other"), l)
			ns := lab.Namespace("node")
			check := func(table string, want ...string) {
				t.Helper()
				if err := ns.Do(func() error {
					chains, err := Chains(ipv6, table)
					if !slices.Equal(chains, want) {
						t.Errorf("table %s: %q, want %q", table, chains, want)
					}
					return err
				}); err != nil {
					t.Error(err)
				}
			}
			run := func(arguments ...string) {
				t.Helper()
				if _, err := ns.Output(l.program, arguments...); err != nil {
					t.Fatal(err)
				}
			}
			// To look must not make the table: from then on packets would pass it.
			// (Kernels before 5.15 make all tables with the namespace.)
			tables := func() string {
				t.Helper()
				out, err := ns.Output("cat", l.names)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			before := tables()
			check("nat")
			if after := tables(); after != before {
				t.Errorf("to look has made tables: there were %q, and are %q", before, after)
			}
			run("-t", "nat", "-N", "KUBE-MARK-MASQ")
			run("-t", "nat", "-A", "KUBE-MARK-MASQ", "-j", "MARK", "--set-xmark", "0x4000/0x4000")
			check("nat", "KUBE-MARK-MASQ")
			run("-t", "nat", "-N", "KUBE-SERVICES")
			run("-t", "nat", "-A", "PREROUTING", "-m", "comment", "--comment", "kubernetes service portals", "-j", "KUBE-SERVICES")
			for i := range 20 {
				run("-t", "nat", "-A", "KUBE-SERVICES", "-p", "tcp", "-m", "comment", "--comment", fmt.Sprint(i), "-m", "tcp", "--dport", "80", "-j", "KUBE-MARK-MASQ")
			}
			check("nat", "KUBE-MARK-MASQ", "KUBE-SERVICES")
			check("mangle")
			run("-t", "nat", "-F")
			run("-t", "nat", "-X", "KUBE-SERVICES")
			check("nat", "KUBE-MARK-MASQ")
		})
	}
}
