// Package rules keeps the plugin's nftables rules on a node: a constant number
// of them, whatever the number of pods, through netlink and no executable.
//
//	table ip flatnet {
//	    set masqueraded { type ipv4_addr; }                       # one element a pod
//	    set exempt     { type ipv4_addr; flags interval; }
//	    chain postrouting {
//	        type nat hook postrouting priority srcnat;
//	        ip saddr @masqueraded ip daddr != @exempt oifgroup != 70 masquerade fully-random
//	    }
//	}
//
// The table of family ip6 has the same, and the guard that IPv6 has no sysctl
// for: what comes from a pod's interface has a source address that is routed to
// that interface, or is link-local and goes no further than the node. The
// routing table is asked once a minute for each source; in between a set
// remembers the answer, which takes a third of the time.
//
//	set verified { typeof iif . ip6 saddr; flags dynamic,timeout; size 65535; }
//	chain guard {
//	    type filter hook prerouting priority raw;
//	    iifgroup != 70 accept
//	    iif . ip6 saddr @verified accept
//	    ip6 saddr fe80::/10 accept
//	    ip6 saddr :: accept
//	    fib saddr . iif oif 0 drop
//	    add @verified { iif . ip6 saddr timeout 1m }
//	}
//
// Each part is made when the first attachment needs it. The last attachment
// that leaves the node takes the tables along.
package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Rules works in the caller's network namespace. Any number of processes may join
// and remove at the same time; whoever adds, rebuilds or clears has to be alone
// with it, and the caller sees to that.
type Rules struct {
	// Step is called before every change, with its name; an error takes the
	// place of the change. Tests make changes fail with it.
	Step func(operation string) error
}

// Need is what an attachment wants of the rules.
type Need struct {
	Addresses []netip.Addr
	// Masquerade gives the addresses the node's own on the way to everything
	// but other pods of the node and the exempt networks.
	Masquerade bool
	Exempt     []netip.Prefix
	// Unguarded leaves out the guard, for kernels that have none.
	Unguarded bool
}

// Guarded reports whether the need includes the guard.
func (n Need) Guarded() bool { return n.has(nft.IPv6) && !n.Unguarded }

func (n Need) has(f nft.Family) bool { return len(n.ofFamily(f)) > 0 }

// masqueraded returns the families in which something is to be masqueraded.
func (n Need) masqueraded() []nft.Family {
	var all []nft.Family
	for _, f := range families {
		if n.Masquerade && n.has(f) {
			all = append(all, f)
		}
	}
	return all
}

func (n Need) ofFamily(f nft.Family) []netip.Addr {
	var addresses []netip.Addr
	for _, a := range n.Addresses {
		if a.Is6() == (f == nft.IPv6) {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

var families = []nft.Family{nft.IPv4, nft.IPv6}

// Join adds the attachment to what others share already. It reports false, and may
// have added a part, where something that is shared is missing: that is for
// [Rules.Add]. An attachment without masquerading and IPv6 needs nothing and costs
// nothing.
func (r *Rules) Join(need Need) (joined bool, err error) { return r.add(need, false) }

// Add makes what the attachment needs, what is shared included, and keeps what is
// there.
func (r *Rules) Add(need Need) error {
	_, err := r.add(need, true)
	return err
}

// add reports false where something that is shared is missing and is not to be made.
func (r *Rules) add(need Need, build bool) (complete bool, err error) {
	if !need.Masquerade && !need.Guarded() {
		return true, nil
	}
	c, err := nft.Open()
	if err != nil {
		return false, err
	}
	defer c.Close()
	if need.Guarded() {
		present, err := c.HasChain(id(nft.IPv6), guardName)
		if err == nil && !present && build {
			present, err = true, r.run(c, "add guard", buildGuard())
		}
		if err != nil {
			return false, fmt.Errorf("adding nftables guard of IPv6 source addresses: %w", err)
		}
		if !present {
			return false, nil
		}
	}
	for _, f := range need.masqueraded() {
		joined, err := r.joinMasquerade(c, f, need)
		if err == nil && !joined && build {
			joined, err = true, r.run(c, "add masquerade", buildMasquerade(f, need))
		}
		if err != nil {
			return false, fmt.Errorf("adding %v to nftables set %s %s: %w", need.ofFamily(f), id(f), masqueradeName, err)
		}
		if !joined {
			return false, nil
		}
	}
	return true, nil
}

// joinMasquerade adds the need's exempt networks and addresses. It reports false
// where that shows that table, sets or rule are missing.
func (r *Rules) joinMasquerade(c *nft.Conn, f nft.Family, need Need) (joined bool, err error) {
	if _, err := r.widenExemptions(c, f, need.exemptions(f)); err != nil {
		return false, ignoreMissing(err)
	}
	t := &nft.Transaction{}
	t.AddElements(id(f), masqueradeSet(f), addressesIn(need.ofFamily(f)).All)
	err = r.run(c, "add element", t)
	return err == nil, ignoreMissing(err)
}

// Rebuild makes all that the attachments together need, whatever is there: for
// when [Rules.Check] has found something wrong, which Add, going by what an ADD
// can meet, would not look for.
func (r *Rules) Rebuild(need Need) error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	if need.Guarded() {
		if err := r.run(c, "add guard", buildGuard()); err != nil {
			return fmt.Errorf("making nftables guard of IPv6 source addresses anew: %w", err)
		}
	}
	for _, f := range need.masqueraded() {
		if err := r.run(c, "add masquerade", buildMasquerade(f, need)); err != nil {
			return fmt.Errorf("making nftables chain %s %s anew: %w", id(f), natName, err)
		}
	}
	return nil
}

// Check reports what of the need is missing, or nil.
func (r *Rules) Check(need Need) error {
	if !need.Masquerade && !need.Guarded() {
		return nil
	}
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	var missing []error
	if need.Guarded() {
		missing = append(missing, checkChain(c, nft.IPv6, guardChain()))
	}
	for _, f := range need.masqueraded() {
		missing = append(missing, checkChain(c, f, masqueradeChain(f)), checkElements(c, f, need))
	}
	return errors.Join(missing...)
}

func checkChain(c *nft.Conn, f nft.Family, want nft.Chain) error {
	there, right, err := c.Chain(id(f), want)
	switch {
	case err != nil:
		return fmt.Errorf("reading nftables chain %s %s: %w", id(f), want.Name, err)
	case !there:
		return fmt.Errorf("nftables chain %s %s is missing", id(f), want.Name)
	case !right:
		return fmt.Errorf("nftables chain %s %s has other rules than flatnet's", id(f), want.Name)
	}
	return nil
}

func checkElements(c *nft.Conn, f nft.Family, need Need) error {
	have := map[string]bool{}
	err := c.Elements(id(f), masqueradeSet(f), func(e nft.Element) { have[e.Key] = true })
	if err := ignoreMissing(err); err != nil {
		return fmt.Errorf("reading nftables set %s %s: %w", id(f), masqueradeName, err)
	}
	for _, a := range need.ofFamily(f) {
		if !have[string(a.AsSlice())] {
			return fmt.Errorf("nftables set %s %s lacks %s: the pod is not masqueraded", id(f), masqueradeName, a)
		}
	}
	return nil
}

// Remove takes the addresses out of the masqueraded ones. The kernel then waits
// in the background until no packet can be using the elements, some tens of
// milliseconds; settle waits for the end of that, which is best done when
// everything else is done. It has to be called in any case.
func (r *Rules) Remove(need Need) (settle func(), err error) {
	if len(need.masqueraded()) == 0 {
		return func() {}, nil
	}
	c, err := nft.Open()
	if err != nil {
		return func() {}, err
	}
	for _, f := range need.masqueraded() {
		// One transaction an address: an address that is missing must not keep
		// the others from being removed.
		for _, a := range need.ofFamily(f) {
			t := &nft.Transaction{}
			t.DeleteElements(id(f), masqueradeSet(f), addressesIn([]netip.Addr{a}).All)
			if err := ignoreMissing(r.run(c, "delete element", t)); err != nil {
				return c.Close, fmt.Errorf("removing %v from nftables set %s %s: %w", need.ofFamily(f), id(f), masqueradeName, err)
			}
		}
	}
	return c.Close, nil // what waits is the closing of the socket
}

// Clear removes the tables, when no attachment is left on the node. Where there
// are none it costs one question. A table stays where a set shows that somebody
// whose records are elsewhere still uses it.
func (r *Rules) Clear() error {
	_, err := r.remove(func(c *nft.Conn, f nft.Family) bool {
		used := false
		err := c.Elements(id(f), masqueradeSet(f), func(nft.Element) { used = true })
		return err == nil && used
	})
	return err
}

// RemoveAll removes the tables, whoever uses them, and returns their names.
func (r *Rules) RemoveAll() (removed []string, err error) {
	return r.remove(func(*nft.Conn, nft.Family) bool { return false })
}

func (r *Rules) remove(used func(*nft.Conn, nft.Family) bool) (removed []string, err error) {
	c, err := nft.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	there, err := c.Tables()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, f := range families {
		if !slices.Contains(there, id(f)) || used(c, f) {
			continue
		}
		t := &nft.Transaction{}
		t.DeleteTable(id(f))
		if err := ignoreMissing(r.run(c, "delete table "+f.String(), t)); err != nil {
			errs = append(errs, fmt.Errorf("removing nftables table %s: %w", id(f), err))
			continue
		}
		removed = append(removed, "nftables table "+id(f).String())
	}
	return removed, errors.Join(errs...)
}

// run runs a transaction, unless a test's step takes its place.
func (r *Rules) run(c *nft.Conn, operation string, t *nft.Transaction) error {
	if r.Step != nil {
		if err := r.Step("nft " + operation); err != nil {
			return err
		}
	}
	return c.Run(t)
}

// ignoreMissing makes a deletion of what is not there no error.
func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
