package rules

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
)

// ExemptMore makes sure that what the plugin masquerades keeps its address on
// the way to the given networks, for which it widens the sets of exempt networks that there
// are. Nothing that they hold is removed, and nothing is made where there is no
// set, which is where no attachment is masqueraded. It reports whether it had
// to change something. The same may happen at the same time in an ADD, which
// only adds, too.
// Equivalent to: `nft add element ip flatnet exempt { PREFIXES }`.
func (r *Rules) ExemptMore(prefixes []netip.Prefix) (changed bool, err error) {
	c, err := connect()
	if err != nil {
		return false, err
	}
	defer c.CloseLasting()
	for _, f := range families {
		wider, err := r.widenExemptions(c, f, prefixes)
		if err != nil && !isMissing(err) {
			return changed, fmt.Errorf("adding to nftables set %s %s %s: %w", familyName(f), tableName, exemptName, err)
		}
		changed = changed || wider
	}
	return changed, nil
}

// widenExemptions adds what the set lacks.
func (r *Rules) widenExemptions(c *nftables.Conn, f nftables.TableFamily, prefixes []netip.Prefix) (bool, error) {
	want, err := r.missingExemptions(c, f, Need{Exempt: prefixes})
	if err != nil || want == nil {
		return false, err
	}
	if err := r.step("add element"); err != nil {
		return false, err
	}
	c.FlushSet(exemptSet(f))
	if err := c.SetAddElements(exemptSet(f), want.elements()); err != nil {
		return false, err
	}
	return true, c.Flush()
}
