package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// setKey identifies a range set by its ranges, so that a set finds its own
// cursor and queue again when the configuration puts it at another index, or
// when ranges that come with a single request (the ipRanges capability) stand
// before it. The zero key stands for no set.
type setKey [8]byte

func (k setKey) String() string {
	if k == (setKey{}) {
		return "-"
	}
	return hex.EncodeToString(k[:])
}

func parseKey(text string) (setKey, bool) {
	var k setKey
	if text == "-" {
		return k, true
	}
	if len(text) != 2*len(k) || strings.ToLower(text) != text {
		return k, false
	}
	n, err := hex.Decode(k[:], []byte(text))
	return k, err == nil && n == len(k) && k != (setKey{})
}

// setText writes a set and its index in the pool, for the link "ranges".
func setText(index uint32, set RangeSet) string {
	return strconv.FormatUint(uint64(index), 10) + " " + rangesText(set)
}

func rangesText(set RangeSet) string {
	var b []byte
	for i := range set {
		r := &set[i]
		if i > 0 {
			b = append(b, ';')
		}
		b = r.Subnet.AppendTo(b)
		b = append(b, ',')
		b = r.First.AppendTo(b)
		b = append(b, ',')
		b = r.Last.AppendTo(b)
		b = append(b, ',')
		if r.Gateway.IsValid() {
			b = r.Gateway.AppendTo(b)
		}
	}
	return string(b)
}

func parseSetText(text string) (index uint32, set RangeSet, ok bool) {
	number, ranges, ok := strings.Cut(text, " ")
	n, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil {
		return 0, nil, false
	}
	for text := range strings.SplitSeq(ranges, ";") {
		fields := strings.Split(text, ",")
		if len(fields) != 4 {
			return 0, nil, false
		}
		var r Range
		var errs [4]error
		r.Subnet, errs[0] = netip.ParsePrefix(fields[0])
		r.First, errs[1] = netip.ParseAddr(fields[1])
		r.Last, errs[2] = netip.ParseAddr(fields[2])
		if fields[3] != "" {
			r.Gateway, errs[3] = netip.ParseAddr(fields[3])
		}
		for _, err := range errs {
			if err != nil {
				return 0, nil, false
			}
		}
		set = append(set, r)
	}
	return uint32(n), set, Pool{set}.Validate() == nil
}

func keyOf(set RangeSet) setKey {
	sum := sha256.Sum256([]byte(rangesText(set)))
	k := setKey(sum[:8])
	if k == (setKey{}) {
		k[0] = 1
	}
	return k
}
