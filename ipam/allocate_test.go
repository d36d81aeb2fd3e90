package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestFirst is host-local's published table of which address comes first,
// given records and a cursor.
func TestFirst(t *testing.T) {
	for _, test := range []struct {
		name     string
		subnets  string
		reserved string
		cursor   string
		want     string
	}{
		{"nothing yet", "10.0.0.0/29", "", "", "10.0.0.2"},
		{"nothing yet, IPv6", "2001:db8:1::/64", "", "", "2001:db8:1::2"},
		{"small", "10.0.0.0/30", "", "", "10.0.0.2"},
		{"the first is taken", "10.0.0.0/29", "10.0.0.2", "", "10.0.0.3"},
		{"behind the cursor", "10.0.0.0/29", "", "10.0.0.5", "10.0.0.6"},
		{"behind the cursor, taken", "10.0.0.0/29", "10.0.0.4 10.0.0.5", "10.0.0.3", "10.0.0.6"},
		{"around", "10.0.0.0/29", "10.0.0.6", "10.0.0.5", "10.0.0.2"},
		{"cursor outside", "10.0.0.0/29", "10.0.0.2", "10.0.0.128", "10.0.0.3"},
		{"cursor unreadable", "10.0.0.0/29", "", "nonsense", "10.0.0.2"},
		{"only the cursor's own is left", "10.0.0.0/29", "10.0.0.2 10.0.0.4 10.0.0.5 10.0.0.6", "10.0.0.3", "10.0.0.3"},
		{"several ranges", "10.0.0.0/30 10.0.1.0/30", "", "", "10.0.0.2"},
		{"next range", "10.0.0.0/30 10.0.1.0/30", "", "10.0.0.2", "10.0.1.2"},
		{"back to the first range", "10.0.0.0/30 10.0.1.0/30 10.0.2.0/30", "", "10.0.2.2", "10.0.0.2"},
		{"full", "10.0.0.0/30", "10.0.0.2", "", "no IP addresses available in range set 10.0.0.1-10.0.0.2: 1 reserved"},
		{"full, wider", "10.0.0.0/29", "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6", "10.0.0.3", "no IP addresses available in range set 10.0.0.1-10.0.0.6: 5 reserved"},
		{"full, two ranges", "10.0.0.0/30 10.0.1.0/30", "10.0.0.2 10.0.1.2", "", "no IP addresses available in range set 10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.2: 2 reserved"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			var set RangeSet
			for _, text := range strings.Fields(test.subnets) {
				r, err := NewRange(netip.MustParsePrefix(text))
				if err != nil {
					t.Fatal(err)
				}
				set = append(set, r)
			}
			for i, addr := range strings.Fields(test.reserved) {
				l.hostLocalAdd(fmt.Sprint("id", i), "eth0", addr, 0)
			}
			l.write("last_reserved_ip.0", test.cursor)
			l.want("add", l.add(Pool{set}, "ID"), test.want)
			l.intact()
		})
	}
}

// TestOrder reads: command, wanted outcome.
func TestOrder(t *testing.T) {
	for _, test := range []struct {
		name, pool, script string
	}{
		{"all but network, gateway and broadcast", `[[{"subnet": "192.168.1.0/29"}]]`, `
			add a = 192.168.1.2
			add b = 192.168.1.3
			add c = 192.168.1.4
			add d = 192.168.1.5
			add e = 192.168.1.6
			add f = no IP addresses available in range set 192.168.1.1-192.168.1.6: 5 reserved`},
		{"a released address is not the next", `[[{"subnet": "192.168.1.0/29"}]]`, `
			add a = 192.168.1.2
			del a = 192.168.1.2
			add a = 192.168.1.3`},
		{"released longest ago first", `[[{"subnet": "10.0.0.0/29"}]]`, `
			add a = 10.0.0.2
			add b = 10.0.0.3
			del b = 10.0.0.3
			del a = 10.0.0.2
			add c = 10.0.0.4
			add d = 10.0.0.5
			add e = 10.0.0.6
			del d = 10.0.0.5
			add f = 10.0.0.3
			add g = 10.0.0.2
			add h = 10.0.0.5
			add i = no IP addresses available in range set 10.0.0.1-10.0.0.6: 5 reserved
			del c = 10.0.0.4
			del h = 10.0.0.5
			add i = 10.0.0.4
			add j = 10.0.0.5`},
		{"start, end, gateway", `[[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.8", "rangeEnd": "10.0.0.10", "gateway": "10.0.0.9"}]]`, `
			add a = 10.0.0.8
			add b = 10.0.0.10
			add c = no IP addresses available in range set 10.0.0.8-10.0.0.10: 2 reserved`},
		{"no gateway to spare", `[[{"subnet": "10.0.0.0/31"}, {"subnet": "10.0.0.7/32"}], [{"subnet": "fd00::/127"}, {"subnet": "fd00::7/128"}]]`, `
			add a = 10.0.0.0 fd00::
			add b = 10.0.0.1 fd00::1
			add c = 10.0.0.7 fd00::7
			add d = no IP addresses available in range set 10.0.0.0-10.0.0.1,10.0.0.7-10.0.0.7: 3 reserved`},
		{"nothing but the gateway", `[[{"subnet": "10.0.0.0/31", "rangeStart": "10.0.0.1", "gateway": "10.0.0.1"}]]`, `
			add a = no IP addresses available in range set 10.0.0.1-10.0.0.1: 0 reserved
			add a 10.0.0.1 = requested address 10.0.0.1 is the gateway of subnet 10.0.0.0/31`},
		{"the last IPv6 address is one", `[[{"subnet": "fd00::/64", "rangeStart": "fd00::ffff:ffff:ffff:fffe"}]]`, `
			add a = fd00::ffff:ffff:ffff:fffe
			add b = fd00::ffff:ffff:ffff:ffff
			add c = no IP addresses available in range set fd00::ffff:ffff:ffff:fffe-fd00::ffff:ffff:ffff:ffff: 2 reserved`},
		{"the highest address of all", `[[{"subnet": "255.255.255.254/31"}], [{"subnet": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"}]]`, `
			add a = 255.255.255.254 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe
			add b = 255.255.255.255 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
			del a = 255.255.255.254 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe
			add b = 255.255.255.255 and ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff are already reserved for container b interface eth0
			add c = 255.255.255.254 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe`},
		{"twice for one owner", `[[{"subnet": "10.1.2.0/24"}]]`, `
			add a = 10.1.2.2
			add a = 10.1.2.2 is already reserved for container a interface eth0
			add b = 10.1.2.3
			add a 10.1.2.9 = 10.1.2.2 is already reserved for container a interface eth0
			del a = 10.1.2.2
			del a = 
			add a = 10.1.2.4`},
		{"requested", `[[{"subnet": "10.1.2.0/24"}]]`, `
			add a 10.1.2.88 = 10.1.2.88
			add b = 10.1.2.2
			add c 10.1.2.88 = requested address 10.1.2.88 is not available: it is reserved for container a interface eth0
			del a = 10.1.2.88
			add c ::ffff:10.1.2.88 = 10.1.2.88
			add d 10.1.2.1 = requested address 10.1.2.1 is the gateway of subnet 10.1.2.0/24
			add d 10.1.2.255 = requested address 10.1.2.255 is outside of all ranges: 10.1.2.1-10.1.2.254
			add d 10.1.3.5 = requested address 10.1.3.5 is outside of all ranges: 10.1.2.1-10.1.2.254
			add d 10.1.2.77 10.1.2.77 = 10.1.2.77
			add e 10.1.2.78 10.1.2.79 = requested address 10.1.2.79 is one too many: every range set gives one address, and that of this one is to be another requested one`},
		{"requested of several sets", `[[{"subnet": "172.16.1.0/24"}, {"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/48"}]]`, `
			add a 2001:db8:1::999 10.1.2.88 = 10.1.2.88 2001:db8:1::999
			add b 10.1.2.89 = 10.1.2.89 2001:db8:1::2
			add c 2001:db8:1::9 = 172.16.1.2 2001:db8:1::9
			add d 2001:db8:1::9 = requested address 2001:db8:1::9 is not available: it is reserved for container c interface eth0
			add e = 172.16.1.3 2001:db8:1::3`},
		{"requested and released again stays behind", `[[{"subnet": "10.0.0.0/29"}]]`, `
			add a 10.0.0.4 = 10.0.0.4
			add b = 10.0.0.2
			del a = 10.0.0.4
			del b = 10.0.0.2
			add c = 10.0.0.3
			add d = 10.0.0.5
			add e = 10.0.0.6
			add f 10.0.0.2 = 10.0.0.2
			add g = 10.0.0.4
			del f = 10.0.0.2
			add f 10.0.0.2 = 10.0.0.2
			add h = no IP addresses available in range set 10.0.0.1-10.0.0.6: 5 reserved`},
		{"one exhausted set holds nothing of the other", `[[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/127"}]]`, `
			add a = 10.0.0.2 fd00::
			add b = 10.0.0.3 fd00::1
			add c = no IP addresses available in range set fd00::-fd00::1: 2 reserved
			add c = no IP addresses available in range set fd00::-fd00::1: 2 reserved
			del a = 10.0.0.2 fd00::
			add c = 10.0.0.4 fd00::
			del c = 10.0.0.4 fd00::
			add d = 10.0.0.5 fd00::
			del d = 10.0.0.5 fd00::
			add e = 10.0.0.6 fd00::
			del e = 10.0.0.6 fd00::
			add f = 10.0.0.2 fd00::`},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			pool := poolOf(t, test.pool)
			for line := range strings.SplitSeq(strings.TrimSpace(test.script), "\n") {
				command, want, _ := strings.Cut(strings.TrimSpace(line), " =")
				words := strings.Fields(command)
				switch words[0] {
				case "add":
					l.want(command, l.add(pool, words[1], words[2:]...), strings.TrimSpace(want))
				case "del":
					l.want(command, l.del(words[1]), strings.TrimSpace(want))
				}
				if _, err := os.Stat(l.path(".flatnet")); err == nil {
					l.intact()
				}
			}
		})
	}
}

func TestAllocation(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}], [{"subnet": "10.9.9.9/32"}]]`)
	got, err := l.open().Allocate(t.Context(), Request{Owner: Owner{"dummy", "eth0"}, Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	l.want("allocations", fmt.Sprint(got), "[{10.1.2.2/24 10.1.2.1} {2001:db8:1::2/64 2001:db8:1::1} {10.9.9.9/32 invalid IP}]")
	for name, want := range map[string]string{
		"10.1.2.2": "dummy\r\neth0", "2001:db8:1::2": "dummy\r\neth0", "10.9.9.9": "dummy\r\neth0",
		"last_reserved_ip.0": "10.1.2.2", "last_reserved_ip.1": "2001:db8:1::2", "last_reserved_ip.2": "10.9.9.9",
	} {
		content, err := os.ReadFile(l.path(name))
		if err != nil || string(content) != want {
			t.Errorf("%s holds %q, %v, want %q", name, content, err, want)
		}
		if st, err := os.Stat(l.path(name)); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s has mode %v, %v", name, st.Mode(), err)
		}
	}
	for _, name := range []string{"", ".flatnet"} {
		if st, err := os.Stat(l.path(name)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%q has mode %v, %v", name, st.Mode(), err)
		}
	}
}

// TestCursorShrinks: a shorter address must not leave the end of a longer one.
func TestCursorShrinks(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.254"}, {"subnet": "10.1.0.0/30"}]]`)
	l.want("add", l.add(pool, "a"), "10.0.0.254")
	l.want("add", l.add(pool, "b"), "10.1.0.2")
	content, err := os.ReadFile(l.path("last_reserved_ip.0"))
	if err != nil {
		t.Fatal(err)
	}
	l.want("cursor", string(content), "10.1.0.2")
}

func TestTypedErrors(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.open()
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/30"}]]`)
	a := Owner{"a", "eth0"}
	addr := netip.MustParseAddr("10.0.0.2")
	if _, err := s.Allocate(ctx, Request{Owner: a, Pool: pool}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Allocate(ctx, Request{Owner: a, Pool: pool})
	if e := as[*DuplicateError](t, err); e.Owner != a || len(e.Addresses) != 1 || e.Addresses[0] != addr {
		t.Errorf("%+v", e)
	}
	b := Owner{"b", "eth0"}
	_, err = s.Allocate(ctx, Request{Owner: b, Pool: pool, Requested: []netip.Addr{addr}})
	if e := as[*TakenError](t, err); e.Holder != a || e.Address != addr {
		t.Errorf("%+v", e)
	}
	_, err = s.Allocate(ctx, Request{Owner: b, Pool: pool, Requested: []netip.Addr{addr.Prev()}})
	if e := as[*OutsideError](t, err); e.Address != addr.Prev() {
		t.Errorf("%+v", e)
	}
	_, err = s.Allocate(ctx, Request{Owner: b, Pool: pool, Requested: []netip.Addr{{}}})
	as[*OutsideError](t, err)
	_, err = s.Allocate(ctx, Request{Owner: b, Pool: pool})
	if e := as[*ExhaustedError](t, err); e.Used != 1 || e.Set.String() != pool[0].String() {
		t.Errorf("%+v", e)
	}
	as[*ExhaustedError](t, s.HasFree(ctx, pool))
	_, err = s.Allocate(ctx, Request{Owner: b})
	as[*RangeError](t, err)
	as[*RangeError](t, s.HasFree(ctx, nil))
	_, err = s.Usage(ctx, nil)
	as[*RangeError](t, err)
}

// TestBadInput: nothing that is refused changes anything on the disk.
func TestBadInput(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	s := l.open()
	pool := poolOf(t, `[[{"subnet": "10.1.2.0/24"}]]`)
	good := Request{Owner: Owner{"a", "eth0"}, Pool: pool}
	if _, err := s.Allocate(ctx, good); err != nil {
		t.Fatal(err)
	}
	before := l.snapshot()
	long := strings.Repeat("x", 5000)
	for name, owner := range map[string]Owner{
		"empty id": {"", "eth0"}, "blank id": {" \r\n", "eth0"}, "slash": {"../a", "eth0"}, "line": {"a\nb", "eth0"}, "zero": {"a\x00b", "eth0"},
		"long id": {long, "eth0"}, "long name": {"b", long}, "name with slash": {"b", "../eth0"}, "name with line": {"b", "eth0\r\n"},
		"name with space": {"b", "eth 0"}, "bad UTF-8": {"b\xff", "eth0"}, "empty name": {"b", ""},
	} {
		r := good
		r.Owner = owner
		if _, err := s.Allocate(ctx, r); err == nil {
			t.Errorf("%s: Allocate takes it", name)
		} else if len(err.Error()) > 300 {
			t.Errorf("%s: the error is %d bytes long", name, len(err.Error()))
		}
		if name == "empty name" {
			continue // that of a record without a name
		}
		if _, err := s.Release(ctx, owner); err == nil {
			t.Errorf("%s: Release takes it", name)
		}
		if _, err := s.Lookup(ctx, owner); err == nil {
			t.Errorf("%s: Lookup takes it", name)
		}
	}
	for name, path := range map[string]string{"long path": long, "line": "/a\nb", "zero": "/a\x00"} {
		r := good
		r.Owner.ContainerID, r.Sandbox.Path = "b", path
		if _, err := s.Allocate(ctx, r); err == nil {
			t.Errorf("%s: Allocate takes it", name)
		}
	}
	// Each within its limit, together too long for a link.
	many := Request{Owner: Owner{strings.Repeat("x", 1000), strings.Repeat("y", 250)}, Sandbox: Sandbox{Path: strings.Repeat("z", 2000)}}
	for i := range 20 {
		r, err := NewRange(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, byte(i), 0}), 24))
		if err != nil {
			t.Fatal(err)
		}
		many.Pool = append(many.Pool, RangeSet{r})
	}
	if _, err := s.Allocate(ctx, many); err == nil {
		t.Error("an entry is too long, and Allocate takes it")
	}
	if l.snapshot() != before {
		t.Errorf("the disk changed:\n%s\nwas\n%s", l.snapshot(), before)
	}
	many.Pool = many.Pool[:8]
	if _, err := s.Allocate(ctx, many); err != nil {
		t.Error(err)
	}
	if got, err := s.Release(ctx, many.Owner); err != nil || len(got) != 8 {
		t.Errorf("released %v, %v", got, err)
	}
	l.intact()

	for name, o := range map[string]Options{
		"no directory": {Network: "n"}, "no network": {Directory: l.root}, "dot": {Directory: l.root, Network: "."}, "dots": {Directory: l.root, Network: ".."},
		"slash": {Directory: l.root, Network: "a/b"}, "long": {Directory: l.root, Network: long}, "zero": {Directory: l.root, Network: "a\x00"},
		"negative": {Directory: l.root, Network: "n", LockTimeout: -1},
	} {
		if _, err := Open(o); err == nil {
			t.Errorf("%s: Open takes it", name)
		}
	}
	if files := l.readDir(".."); len(files) != 1 {
		t.Errorf("Open made %v", files)
	}
	if s, err := Open(Options{Directory: l.root, Network: strings.Repeat("n", 255)}); err != nil {
		t.Error(err)
	} else if _, err := s.Allocate(ctx, good); err != nil {
		t.Error(err)
	}
}

func TestEndedContext(t *testing.T) {
	l := newLab(t)
	s := l.open()
	before := l.snapshot()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	pool := poolOf(t, `[[{"subnet": "10.1.2.0/24"}]]`)
	if _, err := s.Allocate(ctx, Request{Owner: Owner{"a", "eth0"}, Pool: pool}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if l.snapshot() != before {
		t.Error("the disk changed")
	}
}

// TestHugeSet: a /64 has no end, and what was released lately is not met.
func TestHugeSet(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "fd00::/64"}]]`)
	l.want("requested", l.add(pool, "asked", "fd00::3"), "fd00::3")
	l.want("first", l.add(pool, "a"), "fd00::2")
	l.del("asked")
	l.want("not the one just released", l.add(pool, "b"), "fd00::4")
	s := l.open()
	for i := range maxQueueLong + 40 {
		o := Owner{fmt.Sprint("c", i), "eth0"}
		if _, err := s.Allocate(t.Context(), Request{Owner: o, Pool: pool}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Release(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	l.want("the lap goes on", l.add(pool, "d"), netip.MustParseAddr("fd00::").Next().String()[:6]+fmt.Sprintf("%x", maxQueueLong+45))
	u, err := s.Usage(t.Context(), pool[0])
	if err != nil || u.Cooling != maxQueueLong || u.Used != 3 || u.Total != 1<<64-1 {
		t.Errorf("usage %+v, %v", u, err)
	}
	l.intact()
}

// TestManySets: sets that come with single requests do not pile up, and do
// not disturb the others.
func TestManySets(t *testing.T) {
	l := newLab(t)
	own := poolOf(t, `[[{"subnet": "10.0.0.0/29"}]]`)
	l.want("own", l.add(own, "own"), "10.0.0.2")
	for i := range 3 * maxSlots {
		id := fmt.Sprint("c", i)
		other := poolOf(t, fmt.Sprintf(`[[{"subnet": "10.1.%d.0/24"}]]`, i))
		l.want(id, l.add(other, id), fmt.Sprintf("10.1.%d.2", i))
		if i%2 == 0 {
			l.del(id)
		}
		if i%20 == 0 {
			if err := l.open().HasFree(t.Context(), own); err != nil {
				t.Error(err)
			}
			id := fmt.Sprint("own", i)
			l.want("own", l.add(own, id), fmt.Sprintf("10.0.0.%d", 3+i/20%4))
			if i/20%4 == 3 {
				break
			}
		}
	}
	l.intact()
	for i := range 3 * maxSlots {
		id := fmt.Sprint("d", i)
		l.add(poolOf(t, fmt.Sprintf(`[[{"subnet": "10.2.%d.0/24"}]]`, i)), id)
		l.del(id)
	}
	if n := len(l.readDir(".flatnet/sets")); n != maxSlots {
		t.Errorf("%d sets are remembered", n)
	}
	l.intact()
}

// TestChangedRanges: another configuration goes on with the directory.
func TestChangedRanges(t *testing.T) {
	l := newLab(t)
	before := poolOf(t, `[[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/120"}]]`)
	after := poolOf(t, `[[{"subnet": "fd00::/120"}], [{"subnet": "10.0.0.0/28"}]]`)
	for i := 2; i <= 6; i++ {
		l.want("add", l.add(before, fmt.Sprint(i)), fmt.Sprintf("10.0.0.%d fd00::%d", i, i))
	}
	l.del("3")
	l.del("2")
	l.want("add", l.add(after, "7"), "fd00::7 10.0.0.7")
	l.want("add", l.add(after, "8"), "fd00::8 10.0.0.8")
	l.want("add", l.add(after, "9"), "fd00::9 10.0.0.9")
	l.want("del", l.del("4"), "10.0.0.4 fd00::4")
	l.want("back", l.add(before, "10"), "10.0.0.3 fd00::a")
	for i := 11; i <= 15; i++ {
		l.want("add", l.add(after, fmt.Sprint(i)), fmt.Sprintf("fd00::%x 10.0.0.%d", i, i-1))
	}
	// What the other configuration released is better than nothing.
	l.want("add", l.add(after, "16"), "fd00::10 10.0.0.2")
	l.want("add", l.add(after, "17"), "fd00::11 10.0.0.4")
	l.want("add", l.add(after, "18"), "no IP addresses available in range set 10.0.0.1-10.0.0.14: 13 reserved")
	l.want("del", l.del("10"), "10.0.0.3 fd00::a")
	if err := l.open().HasFree(t.Context(), after); err != nil {
		t.Error(err)
	}
	l.want("add", l.add(after, "18"), "fd00::12 10.0.0.3")
	l.intact()
}

func TestNoTmpfile(t *testing.T) {
	l := newLab(t)
	s := l.open()
	s.noTmpfile = true
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/120"}]]`)
	for _, id := range []string{"a", "b"} {
		if _, err := s.Allocate(t.Context(), Request{Owner: Owner{id, "eth0"}, Pool: pool}); err != nil {
			t.Fatal(err)
		}
		l.intact()
	}
	l.want("lookup", l.lookup("b", "eth0"), "10.0.0.3 fd00::3")
}
