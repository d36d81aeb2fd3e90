package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
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
	c, err := connect()
	if err != nil {
		return false, false, err
	}
	defer c.CloseLasting()
	for _, f := range families {
		wider, err := r.widenExemptions(c, f, Need{Exempt: prefixes}.exemptions(f))
		if err != nil && !isMissing(err) {
			return present, changed, fmt.Errorf("adding to nftables set %s %s %s: %w", familyName(f), tableName, exemptName, err)
		}
		present = present || err == nil
		changed = changed || wider
	}
	return present, changed, nil
}

// widenExemptions adds what the set lacks, and takes out what that comprises.
// It asks again where the set was not as it had been a moment before.
func (r *Rules) widenExemptions(c *nftables.Conn, f nftables.TableFamily, prefixes []netip.Prefix) (changed bool, err error) {
	const attempts = 10
	for range attempts {
		var present []nftables.SetElement
		present, err = c.GetSetElements(exemptSet(f))
		if err != nil {
			return false, err
		}
		have := rangesOf(present)
		want := have.with(prefixes)
		if want.equal(have) {
			return false, nil
		}
		if err := r.step("add element"); err != nil {
			return false, err
		}
		if err := c.SetDeleteElements(exemptSet(f), have.without(want).elements()); err != nil {
			return false, err
		}
		if err := c.SetAddElements(exemptSet(f), want.without(have).elements()); err != nil {
			return false, err
		}
		if err = c.Flush(); err == nil {
			return true, nil
		}
		if !isMissing(err) && !errors.Is(err, unix.EEXIST) {
			return false, err
		}
	}
	// Not "missing": the set is there.
	return false, fmt.Errorf("%v, %d times in a row: others change the set all the time", err, attempts)
}

// without returns those of the spans that the others have not.
func (r ranges) without(others ranges) ranges {
	return slices.DeleteFunc(slices.Clone(r), func(s span) bool { return slices.Contains(others, s) })
}
