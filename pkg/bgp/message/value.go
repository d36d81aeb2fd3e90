package message

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Family is an address family.
type Family string

// The families, as they are written.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// FamilyNamed returns the family that is written so.
func FamilyNamed(text string) (Family, bool) {
	f := Family(text)
	return f, f == IPv4 || f == IPv6
}

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Community is a mark on a route: of two numbers in 32 bits (RFC 1997), or a large one of
// three (RFC 8092).
type Community struct {
	Large bool
	Parts [3]uint32 // two of them where it is not large
}

var wellKnown = map[string]Community{
	"no-export":    {Parts: [3]uint32{0xffff, 0xff01}},
	"no-advertise": {Parts: [3]uint32{0xffff, 0xff02}},
}

// ParseCommunity reads 64512:70, 64512:1:2, no-export or no-advertise.
func ParseCommunity(text string) (c Community, err error) {
	if known, is := wellKnown[text]; is {
		return known, nil
	}
	parts := strings.Split(text, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	if bits == 0 {
		return c, fmt.Errorf("%q is not a community such as 64512:70, 64512:1:2 or no-export", text)
	}
	c.Large = bits == 32
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, bits)
		if err != nil {
			return c, fmt.Errorf("%q: %s is not a number of %d bits", text, part, bits)
		}
		c.Parts[i] = uint32(n)
	}
	return c, nil
}
