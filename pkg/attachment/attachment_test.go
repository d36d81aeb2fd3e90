package attachment

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

func key(container string) Key {
	return Key{Network: "net", ContainerID: container, Interface: "eth0"}
}

func TestNamesOfHostInterfaces(t *testing.T) {
	seen := map[string]Key{}
	for i := range 5000 {
		for attempt := range 2 {
			k := key(fmt.Sprint(i))
			name := k.HostInterface("veth", attempt)
			if len(name) != 15 || !strings.HasPrefix(name, "veth") || name != k.HostInterface("veth", attempt) {
				t.Fatalf("%v: %q", k, name)
			}
			if other, taken := seen[name]; taken {
				t.Errorf("%v and %v are both called %s", k, other, name)
			}
			seen[name] = k
		}
	}
	// The parts of a key cannot be confused with each other.
	if (Key{"a", "bc", "d"}).HostInterface("veth", 0) == (Key{"ab", "c", "d"}).HostInterface("veth", 0) {
		t.Error("two keys share a name")
	}
}

func TestMACsAreLocalAndUnicast(t *testing.T) {
	for i := range 1000 {
		host, pod := key(fmt.Sprint(i)).MACs()
		for _, mac := range []kernel.MAC{host, pod} {
			if mac[0]&1 != 0 || mac[0]&2 == 0 {
				t.Fatalf("MAC address %s", mac)
			}
		}
		if host.String() == pod.String() {
			t.Fatalf("both ends have %s", host)
		}
	}
}

func TestAlias(t *testing.T) {
	long := Key{Network: strings.Repeat("n", 255), ContainerID: strings.Repeat("c", 64), Interface: "eth0"}
	for _, c := range []struct {
		key        Key
		pod, alias string
		known      bool
	}{
		{key("a"), "", "flatnet net/a/eth0", true},
		{key("a"), "ns/name", "flatnet net/a/eth0 ns/name", true},
		{key("a"), strings.Repeat("p", 300), "flatnet net/a/eth0 " + strings.Repeat("p", 236), true},
		{long, "ns/name", long.Alias("") + " ns/name", false},
	} {
		alias := c.key.Alias(c.pod)
		if alias != c.alias || len(alias) > 255 {
			t.Errorf("%v: alias %q, want %q", c.key, alias, c.alias)
		}
		if !c.key.Owns(alias) || key("b").Owns(alias) || key("a0").Owns(alias) {
			t.Errorf("alias %q: wrong owner", alias)
		}
		if k, known := KeyOf(alias); known != c.known || known && k != c.key {
			t.Errorf("KeyOf(%q) = %v, %v", alias, k, known)
		}
	}
	for _, alias := range []string{"", "flatnet", "flatnet a/b", "other a/b/c"} {
		if _, known := KeyOf(alias); known {
			t.Errorf("KeyOf(%q) found a key", alias)
		}
	}
}

func example(container string) Record {
	scope := 200
	return Record{
		Key: key(container), Sandbox: Sandbox{Path: "/run/netns/x", Device: 4, Inode: 1 << 40},
		Wire: wire.Wire{
			Host:  kernel.End{Name: "veth0", MAC: kernel.MAC{2, 0, 0, 0, 0, 1}},
			Pod:   kernel.End{Name: "eth0", MAC: kernel.MAC{2, 0, 0, 0, 0, 2}},
			Alias: "x", MTU: 1500, Addresses: []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")},
			Gateways: []netip.Addr{netip.MustParseAddr("10.1.2.1")},
			Routes: []wire.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0")},
				{Destination: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fe80::1"), Scope: &scope, Table: 5}},
		},
		DataDir: "/run/x", Masquerade: true, Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Pod: "ns/name", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func TestRecords(t *testing.T) {
	d := OpenDirectory(t.TempDir())
	if _, ok := d.Get(key("a")); ok || d.Others(key("a")) {
		t.Error("there is a record before the first")
	}
	for _, container := range []string{"a", "b", strings.Repeat("long", 300)} {
		if err := d.Put(example(container)); err != nil {
			t.Fatal(err)
		}
		got, ok := d.Get(key(container))
		if !ok || !reflect.DeepEqual(got, example(container)) {
			t.Errorf("got  %+v\nwant %+v", got, example(container))
		}
	}
	if info, err := os.Stat(d.path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	if all, err := d.List("net"); err != nil || len(all) != 3 {
		t.Errorf("listed %d, %v", len(all), err)
	}
	if all, err := d.List("other"); err != nil || len(all) != 0 {
		t.Errorf("listed %d of another network, %v", len(all), err)
	}
	for range 2 {
		if err := d.Delete(key("b")); err != nil {
			t.Error(err)
		}
	}
	if !d.Others(key("a")) {
		t.Error("the long one was overlooked")
	}
	if err := d.Delete(key(strings.Repeat("long", 300))); err != nil || d.Others(key("a")) {
		t.Errorf("something is left: %v", err)
	}
}

// What cannot be worked with is no record: DEL then finds everything otherwise.
func TestRecordWithoutMACs(t *testing.T) {
	d := OpenDirectory(t.TempDir())
	r := example("a")
	r.Wire.Pod.MAC = kernel.MAC{}
	if err := d.Put(r); err != nil {
		t.Fatal(err)
	}
	if got, ok := d.Get(key("a")); ok {
		t.Errorf("got %+v", got)
	}
}

// A write that was interrupted leaves what Delete and SweepTorn find.
func TestInterruptedWrite(t *testing.T) {
	d := OpenDirectory(t.TempDir())
	d.Step = func(operation string) error {
		if operation == "rename record" {
			return errors.New("interrupted")
		}
		return nil
	}
	if err := d.Put(example("a")); err == nil {
		t.Error("no error")
	}
	if _, ok := d.Get(key("a")); ok {
		t.Error("half a record was read")
	}
	if all, err := d.List("net"); err != nil || len(all) != 1 {
		t.Errorf("GC sees %d, %v; want the interrupted one", len(all), err)
	}
	if err := d.Delete(key("a")); err != nil {
		t.Error(err)
	}
	torn := filepath.Join(d.path, "torn"+temporaryMark)
	if err := os.WriteFile(torn, []byte(`{"netw`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.SweepTorn(time.Hour); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(torn); err != nil {
		t.Error("what may still be written was swept away")
	}
	if err := d.SweepTorn(0); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(d.path); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// Garbage in a record is as good as no record.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"network": "net", "containerID": "a", "ifname": "eth0", "wire": {"addresses": ["10.1.2.3"], "host": {"mac": "02:00:00:00:00:01"}}}`))
	f.Add([]byte(``))
	directory := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := OpenDirectory(directory)
		if err := d.Put(example("a")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.file(key("a")), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, ok := d.Get(key("a")); ok && r.Key != key("a") {
			t.Errorf("got the record of %v", r.Key)
		}
		if _, err := d.List("net"); err != nil {
			t.Error(err)
		}
		if err := d.Put(example("a")); err != nil {
			t.Error(err)
		}
		if err := d.Delete(key("a")); err != nil || d.Others(Key{}) {
			t.Errorf("not deleted: %v", err)
		}
	})
}
