package ipam

import (
	"encoding/json"
	"math"
	"net/netip"
	"strings"
	"testing"
)

func TestRange(t *testing.T) {
	for _, test := range []struct {
		name, config string
		want         string // first-last gateway, or the error
	}{
		// What host-local's own tests publish.
		{"IPv4", `{"subnet": "192.0.2.0/24"}`, "192.0.2.1-192.0.2.254 192.0.2.1"},
		{"smaller IPv4", `{"subnet": "192.0.2.0/25"}`, "192.0.2.1-192.0.2.126 192.0.2.1"},
		{"IPv4 host bits", `{"subnet": "192.0.2.12/24"}`, "subnet 192.0.2.12/24 has host bits set, the network of length 24 is 192.0.2.0/24"},
		{"IPv4 odd network", `{"subnet": "192.168.127.0/23"}`, "subnet 192.168.127.0/23 has host bits set, the network of length 23 is 192.168.126.0/23"},
		{"IPv6 host bits", `{"subnet": "2001:DB8:1::24:19ff:fee1:c44a/64"}`, "subnet 2001:db8:1:0:24:19ff:fee1:c44a/64 has host bits set, the network of length 64 is 2001:db8:1::/64"},
		{"IPv6 odd network", `{"subnet": "2001:DB8:24:19ff::/63"}`, "subnet 2001:db8:24:19ff::/63 has host bits set, the network of length 63 is 2001:db8:24:19fe::/63"},
		{"IPv6", `{"subnet": "2001:DB8:1::/64"}`, "2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff 2001:db8:1::1"},
		{"start outside", `{"subnet": "192.0.2.0/24", "rangeStart": "192.0.3.0"}`, "rangeStart 192.0.3.0 is outside of subnet 192.0.2.0/24"},
		{"end outside", `{"subnet": "192.0.2.0/24", "rangeEnd": "192.0.4.0"}`, "rangeEnd 192.0.4.0 is outside of subnet 192.0.2.0/24"},
		{"start after end", `{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.50", "rangeEnd": "192.0.2.40"}`, "rangeStart 192.0.2.50 is after rangeEnd 192.0.2.40"},
		{"everything", `{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.40", "rangeEnd": "192.0.2.50", "gateway": "192.0.2.254"}`, "192.0.2.40-192.0.2.50 192.0.2.254"},
		{"start at the network address", `{"subnet": "192.168.1.0/30", "rangeStart": "192.168.1.0", "rangeEnd": "192.168.1.3"}`, "192.168.1.0-192.168.1.3 192.168.1.1"},
		{"gateway elsewhere", `{"subnet": "192.0.2.0/24", "gateway": "10.0.0.1"}`, "192.0.2.1-192.0.2.254 10.0.0.1"},

		// host-local refuses these as too small.
		{"/31", `{"subnet": "192.0.2.0/31"}`, "192.0.2.0-192.0.2.1 invalid IP"},
		{"/32", `{"subnet": "192.0.2.7/32"}`, "192.0.2.7-192.0.2.7 invalid IP"},
		{"/127", `{"subnet": "fd00::/127"}`, "fd00::-fd00::1 invalid IP"},
		{"/128", `{"subnet": "fd00::7/128"}`, "fd00::7-fd00::7 invalid IP"},
		{"/31 with gateway", `{"subnet": "192.0.2.0/31", "gateway": "192.0.2.0"}`, "192.0.2.0-192.0.2.1 192.0.2.0"},
		{"/30", `{"subnet": "192.0.2.0/30"}`, "192.0.2.1-192.0.2.2 192.0.2.1"},
		{"/126", `{"subnet": "fd00::/126"}`, "fd00::1-fd00::3 fd00::1"},
		{"/0", `{"subnet": "0.0.0.0/0"}`, "0.0.0.1-255.255.255.254 0.0.0.1"},
		{"::/0", `{"subnet": "::/0"}`, "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::1"},

		{"mapped addresses", `{"subnet": "10.0.0.0/24", "rangeStart": "::ffff:10.0.0.9", "rangeEnd": "::ffff:10.0.0.10", "gateway": "::ffff:10.0.0.8"}`, "10.0.0.9-10.0.0.10 10.0.0.8"},
		{"empty and null", `{"subnet": "10.0.0.0/24", "rangeStart": "", "rangeEnd": null, "gateway": ""}`, "10.0.0.1-10.0.0.254 10.0.0.1"},
		{"other keys", `{"type": "host-local", "subnet": "10.0.0.0/24", "routes": [{}]}`, "10.0.0.1-10.0.0.254 10.0.0.1"},

		{"no subnet", `{"rangeStart": "10.0.0.1"}`, "subnet is missing"},
		{"bad subnet", `{"subnet": "10.0.0.0"}`, "subnet 10.0.0.0 is not a network such as 10.1.0.0/24"},
		{"long prefix", `{"subnet": "10.0.0.0/33"}`, "subnet 10.0.0.0/33 is not a network such as 10.1.0.0/24"},
		{"bad address", `{"subnet": "10.0.0.0/24", "gateway": "10.0.0.256"}`, "gateway 10.0.0.256 is not an IP address"},
		{"zone", `{"subnet": "fe80::/64", "rangeStart": "fe80::2%eth0"}`, "rangeStart fe80::2%eth0 is not an IP address"},
		{"number", `{"subnet": 10}`, "subnet 10 is not a JSON string"},
		{"other family", `{"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}`, "rangeEnd fd00::1 is outside of subnet 10.0.0.0/24"},
		{"no object", `["10.0.0.0/24"]`, `["10.0.0.0/24"] is not a range: a JSON object with a subnet is`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r Range
			err := json.Unmarshal([]byte(test.config), &r)
			got := r.String() + " " + r.Gateway.String()
			if err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if err == nil {
				again := Range{}
				if text, err := json.Marshal(r); err != nil {
					t.Error(err)
				} else if err := json.Unmarshal(text, &again); err != nil || again != r {
					t.Errorf("%s reads back as %v, %v", text, again, err)
				}
			}
		})
	}
}

func TestRangeContains(t *testing.T) {
	for _, test := range []struct{ config, inside, outside string }{
		{`{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.40", "rangeEnd": "192.0.2.50"}`,
			"192.0.2.40 192.0.2.50", "192.0.3.0 192.0.2.39 192.0.2.51 ::ffff:192.0.2.41 fd00::1"},
		{`{"subnet": "2001:DB8:1::/64", "rangeStart": "2001:db8:1::40", "rangeEnd": "2001:db8:1::50"}`,
			"2001:db8:1::40 2001:db8:1::50", "2001:db8:2:: 2001:db8:1::39 2001:db8:1::51 10.0.0.1"},
	} {
		r := rangeOf(t, test.config)
		for _, text := range strings.Fields(test.inside) {
			if !r.Contains(netip.MustParseAddr(text)) {
				t.Errorf("%v does not contain %s", &r, text)
			}
		}
		for _, text := range strings.Fields(test.outside) {
			if r.Contains(netip.MustParseAddr(text)) {
				t.Errorf("%v contains %s", &r, text)
			}
		}
		if r.Contains(netip.Addr{}) {
			t.Errorf("%v contains nothing", &r)
		}
	}
}

func TestRangesOverlap(t *testing.T) {
	for _, test := range []struct {
		name, a, b string
		want       bool
	}{
		{"apart", `{"subnet": "10.0.0.0/24"}`, `{"subnet": "10.0.1.0/24"}`, false},
		{"families", `{"subnet": "0.0.0.0/24"}`, `{"subnet": "::/24"}`, false},
		{"identical", `{"subnet": "10.0.0.0/24"}`, `{"subnet": "10.0.0.0/24"}`, true},
		{"containing", `{"subnet": "10.0.0.0/20"}`, `{"subnet": "10.0.1.0/24"}`, true},
		{"halves", `{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.127"}`, `{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.128"}`, false},
		{"halves that touch", `{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.127"}`, `{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.127"}`, true},
	} {
		a, b := rangeOf(t, test.a), rangeOf(t, test.b)
		if a.Overlaps(&b) != test.want || b.Overlaps(&a) != test.want {
			t.Errorf("%s: got %v and %v, want %v", test.name, a.Overlaps(&b), b.Overlaps(&a), test.want)
		}
	}
}

func TestPool(t *testing.T) {
	for _, test := range []struct{ name, config, want string }{
		{"one", `[[{"subnet": "10.1.2.0/24"}]]`, "10.1.2.1-10.1.2.254"},
		{"sets", `[[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.8"}, {"subnet": "10.2.0.0/24"}], [{"subnet": "fd00::/64"}]]`,
			"10.1.0.8-10.1.0.254,10.2.0.1-10.2.0.254; fd00::1-fd00::ffff:ffff:ffff:ffff"},
		{"overlap between sets", `[[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.0.0/22"}]]`,
			"ranges[1][0]: 10.1.0.1-10.1.3.254 overlaps with ranges[0][0] 10.1.2.1-10.1.2.254"},
		{"overlap within a set", `[[{"subnet": "10.1.0.0/22"}, {"subnet": "10.1.2.0/24"}]]`,
			"ranges[0][1]: 10.1.2.1-10.1.2.254 overlaps with ranges[0][0] 10.1.0.1-10.1.3.254"},
		{"overlap of a long range with a late one", `[[{"subnet": "10.0.0.0/8"}, {"subnet": "11.0.0.0/8"}, {"subnet": "10.250.0.0/16"}]]`,
			"ranges[0][2]: 10.250.0.1-10.250.255.254 overlaps with ranges[0][0] 10.0.0.1-10.255.255.254"},
		{"families", `[[{"subnet": "10.1.2.0/24"}, {"subnet": "fd00::/64"}]]`,
			"ranges[0][1]: subnet fd00::/64 is of another address family than the first range of its set"},
		{"no set", `[]`, "no range set is given"},
		{"null", `null`, "no range set is given"},
		{"empty set", `[[{"subnet": "10.1.2.0/24"}], []]`, "ranges[1]: the range set is empty"},
		{"null set", `[null]`, "ranges[0]: the range set is empty"},
		{"null range", `[[null]]`, "ranges[0][0]: subnet is missing"},
		{"flat", `[{"subnet": "10.1.2.0/24"}]`, `ranges[0]: {"subnet": "10.1.2.0/24"} is not a list of ranges`},
		{"object", `{"subnet": "10.1.2.0/24"}`, `ranges: {"subnet": "10.1.2.0/24"} is not a list of range sets`},
		{"position", `[[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.9"}]]`,
			"ranges[0][1]: rangeEnd 10.2.0.9 is outside of subnet 10.1.0.0/24"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pool, err := ParsePool("ranges", []byte(test.config))
			if err == nil {
				err = pool.Validate()
			}
			got := pool.String()
			if err != nil {
				got = err.Error()
				if _, ok := err.(*RangeError); !ok {
					t.Errorf("%T is not a *RangeError", err)
				}
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestPoolByHand(t *testing.T) {
	subnet := netip.MustParsePrefix("10.1.2.0/24")
	in, out := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.1.3.3")
	for _, test := range []struct {
		r    Range
		want string
	}{
		{Range{}, "ranges[0][0]: subnet is missing"},
		{Range{Subnet: subnet}, "ranges[0][0]: rangeStart invalid IP is outside of subnet 10.1.2.0/24"},
		{Range{Subnet: subnet, First: in, Last: out}, "ranges[0][0]: rangeEnd 10.1.3.3 is outside of subnet 10.1.2.0/24"},
		{Range{Subnet: subnet, First: in.Next(), Last: in}, "ranges[0][0]: rangeStart 10.1.2.4 is after rangeEnd 10.1.2.3"},
		{Range{Subnet: netip.MustParsePrefix("10.1.2.9/24"), First: in, Last: in}, "ranges[0][0]: subnet 10.1.2.9/24 has host bits set, the network of length 24 is 10.1.2.0/24"},
	} {
		if err := (Pool{{test.r}}).Validate(); err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

func TestRing(t *testing.T) {
	set := poolOf(t, `[[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/31"}, {"subnet": "10.0.2.7/32"}]]`)[0]
	var got []string
	cursor := netip.Addr{}
	for range set.size() + 1 {
		cursor, _ = set.after(cursor)
		got = append(got, cursor.String())
	}
	want := "10.0.0.1 10.0.0.2 10.0.1.0 10.0.1.1 10.0.2.7 10.0.0.1"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if set.size() != 5 || set.allocatable() != 4 {
		t.Errorf("%d places, %d allocatable, want 5 and 4", set.size(), set.allocatable())
	}
}

func TestSize(t *testing.T) {
	for config, want := range map[string]uint64{
		`[[{"subnet": "10.0.0.0/8"}]]`:                               1<<24 - 3,
		`[[{"subnet": "fd00::/65"}]]`:                                1<<63 - 2,
		`[[{"subnet": "fd00::/64"}]]`:                                math.MaxUint64,
		`[[{"subnet": "::/0"}]]`:                                     math.MaxUint64,
		`[[{"subnet": "fd00::/65"}, {"subnet": "fd00:0:0:1::/65"}]]`: math.MaxUint64 - 3,
		`[[{"subnet": "fd00::/64"}, {"subnet": "fd00:0:0:1::/64"}]]`: math.MaxUint64,
		`[[{"subnet": "10.0.0.0/24", "gateway": "10.9.9.9"}]]`:       254,
	} {
		if got := poolOf(t, config)[0].allocatable(); got != want {
			t.Errorf("%s: %d allocatable, want %d", config, got, want)
		}
	}
}

func FuzzParsePool(f *testing.F) {
	for _, seed := range []string{
		`[[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.8", "rangeEnd": "10.1.0.99", "gateway": "10.1.0.254"}], [{"subnet": "fd00::/64"}]]`,
		`[[{"subnet": "::ffff:10.1.0.0/120"}]]`, `[[{"subnet": "192.0.2.0/31"}, {"subnet": "0.0.0.0/0"}]]`, `[[]]`, `null`, `[[{"subnet": "::/0"}]]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		pool, err := ParsePool("ranges", config)
		if err == nil {
			err = pool.Validate()
		}
		if err != nil {
			if _, ok := err.(*RangeError); !ok || err.Error() == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		for i, set := range pool {
			if set.allocatable() > set.size() || set.size() == 0 {
				t.Fatalf("%s has %d places and %d addresses", set, set.size(), set.allocatable())
			}
			cursor := netip.Addr{}
			for range 10 {
				next, r := set.after(cursor)
				if !r.Contains(next) || !r.Subnet.Contains(next) {
					t.Fatalf("%s is followed by %s, which is not in %v", cursor, next, r)
				}
				cursor = next
			}
			index, again, ok := parseSetText(setText(uint32(i), set))
			if !ok || index != uint32(i) || keyOf(again) != keyOf(set) {
				t.Fatalf("%q reads back as %v", setText(uint32(i), set), again)
			}
		}
		text, err := json.Marshal(pool)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePool("ranges", text)
		if err != nil || again.String() != pool.String() {
			t.Fatalf("%s reads back as %v, %v", text, again, err)
		}
	})
}

func rangeOf(t testing.TB, config string) Range {
	t.Helper()
	var r Range
	if err := json.Unmarshal([]byte(config), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func poolOf(t testing.TB, config string) Pool {
	t.Helper()
	pool, err := ParsePool("ranges", []byte(config))
	if err == nil {
		err = pool.Validate()
	}
	if err != nil {
		t.Fatal(err)
	}
	return pool
}
