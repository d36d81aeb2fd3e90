package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// ExemptMore makes sure that what the plugin masquerades keeps its address on
// the way to the given networks: it widens the sets of exempt networks that
// there are. Nothing that they cover is given up, and nothing is made where
// there is no set, because no attachment is masqueraded there. It reports
// whether there is a set, and whether it had to change something; where not, it
// costs two questions.
//
// An ADD may do the same at the same time: what either added stays. One that makes
// the table anew may undo the widening, so who relies on it has to call again when
// the table has changed.
// Equivalent to: `nft add element ip flatnet exempt { PREFIXES }`.
func (r *Rules) ExemptMore(prefixes []netip.Prefix) (present, changed bool, err error) {
	c, err := nft.Open()
	if err != nil {
		return false, false, err
	}
	defer c.Close()
	for _, f := range families {
		wider, err := r.widenExemptions(c, f, Need{Exempt: prefixes}.exemptions(f))
		if ignoreMissing(err) != nil {
			return present, changed, fmt.Errorf("adding to nftables set %s %s: %w", id(f), exemptName, err)
		}
		present = present || err == nil
		changed = changed || wider
	}
	return present, changed, nil
}

// widenExemptions adds what the set lacks, and takes out what that comprises.
// It asks again where the set was not as it had been a moment before.
func (r *Rules) widenExemptions(c *nft.Conn, f nft.Family, prefixes []netip.Prefix) (changed bool, err error) {
	const attempts = 10
	for range attempts {
		var have nft.Ranges
		err = c.Elements(id(f), exemptSet(f), func(e nft.Element) { have = append(have, nft.RangeIn(e)) })
		if err == nil {
			want := have.With(prefixes...)
			if slices.Equal(want, have) {
				return false, nil
			}
			t := &nft.Transaction{}
			t.DeleteElements(id(f), exemptSet(f), without(have, want).All)
			t.AddElements(id(f), exemptSet(f), without(want, have).All)
			if err = r.run(c, "add element", t); err == nil {
				return true, nil
			}
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) {
				return false, err
			}
		} else if !errors.Is(err, nft.ErrInterrupted) {
			return false, err
		}
	}
	// Not "missing": the set is there.
	return false, fmt.Errorf("%v, %d times in a row: others change the set all the time", err, attempts)
}

// without returns those of the ranges that the others have not.
func without(all, others nft.Ranges) nft.Ranges {
	return slices.DeleteFunc(slices.Clone(all), func(r nft.Range) bool { return slices.Contains(others, r) })
}
