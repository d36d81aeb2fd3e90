package nft

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

func TestRangeText(t *testing.T) {
	for _, c := range []struct{ first, last, want string }{
		{"10.0.0.1", "10.0.0.1", "10.0.0.1"},
		{"10.0.0.0", "10.0.0.255", "10.0.0.0/24"},
		{"10.0.0.1", "10.0.0.255", "10.0.0.1-10.0.0.255"},
		{"10.0.1.0", "10.0.2.255", "10.0.1.0-10.0.2.255"},
		{"0.0.0.0", "255.255.255.255", "0.0.0.0/0"},
		{"fd00::", "fd00::ffff", "fd00::/112"},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"},
	} {
		got := Range{netip.MustParseAddr(c.first), netip.MustParseAddr(c.last)}.String()
		if got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.first, c.last, got, c.want)
		}
	}
}

func rangesOf(prefixes ...string) (all Ranges) {
	for _, p := range prefixes {
		all = append(all, RangeOf(netip.MustParsePrefix(p)))
	}
	return all
}

// TestEdges: what the kernel is given is read back the same, in whatever order.
func TestEdges(t *testing.T) {
	made, err := Set{Type: "type ipv4_addr", Flags: "interval"}.shape()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Ranges{
		nil,
		rangesOf("10.0.0.0/24"),
		rangesOf("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.4.0/24"), // one ends where the next begins
		rangesOf("0.0.0.0/0"),
		rangesOf("0.0.0.0/32", "255.255.255.255/32"),
		rangesOf("10.0.0.0/8", "224.0.0.0/3"),
	} {
		var raw [][]byte
		want.All(func(e Element) bool {
			for _, one := range netlink.Attributes(made.append(nil, e, true)) {
				raw = append(raw, one)
			}
			return true
		})
		slices.Reverse(raw)
		// The end that nft puts before everything means nothing.
		for _, extra := range [][]edge{nil, {{Element{Key: "\x00\x00\x00\x00"}, true}}} {
			read := edges{size: 4, all: extra}
			for _, one := range raw {
				read.add(made.element(one))
			}
			var got []Element
			read.each(func(e Element) { got = append(got, e) })
			if all := slices.Collect(want.All); !slices.Equal(got, all) {
				t.Errorf("%v: read back as %v, want %v", want, got, all)
			}
		}
	}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func TestUnion(t *testing.T) {
	for _, c := range []struct {
		in   []netip.Prefix
		want Ranges
	}{
		{prefixes("10.1.0.0/16", "10.0.0.0/8", "10.2.0.0/16"), Ranges{{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.255.255.255")}}},
		{prefixes("10.0.1.0/24", "10.0.0.0/24"), Ranges{{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.1.255")}}},
		{prefixes("10.0.0.0/24", "10.0.2.0/24"), Ranges{
			{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.0.255")}, {netip.MustParseAddr("10.0.2.0"), netip.MustParseAddr("10.0.2.255")}}},
		{prefixes("0.0.0.0/0", "224.0.0.0/4"), Ranges{{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255")}}},
		{prefixes("ff00::/8"), Ranges{{netip.MustParseAddr("ff00::"), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}}},
	} {
		got := Ranges(nil).With(c.in...)
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.in, got, c.want)
		}
	}
}
