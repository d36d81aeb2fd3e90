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
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

const (
	tableName      = "flatnet"
	masqueradeName = "masqueraded" // without the d it is a word of nft's, and could not be loaded again
	exemptName     = "exempt"
	natChain       = "postrouting"
	guardChain     = "guard"
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
func (n Need) Guarded() bool { return n.has(nftables.TableFamilyIPv6) && !n.Unguarded }

func (n Need) has(f nftables.TableFamily) bool { return len(n.ofFamily(f)) > 0 }

// masqueraded returns the families in which something is to be masqueraded.
func (n Need) masqueraded() []nftables.TableFamily {
	var all []nftables.TableFamily
	for _, f := range families {
		if n.Masquerade && n.has(f) {
			all = append(all, f)
		}
	}
	return all
}

func (n Need) ofFamily(f nftables.TableFamily) []netip.Addr {
	var addresses []netip.Addr
	for _, a := range n.Addresses {
		if a.Is6() == (f == nftables.TableFamilyIPv6) {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

var families = []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}

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
	c, err := connect()
	if err != nil {
		return false, err
	}
	defer c.CloseLasting()
	if need.Guarded() {
		present, err := r.hasGuard(c)
		if err == nil && !present && build {
			present, err = true, r.buildGuard(c)
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
			joined, err = true, r.buildMasquerade(c, f, need)
		}
		if err != nil {
			return false, fmt.Errorf("adding %v to nftables set %s %s %s: %w", need.ofFamily(f), familyName(f), tableName, masqueradeName, err)
		}
		if !joined {
			return false, nil
		}
	}
	return true, nil
}

// Rebuild makes all that the attachments together need, whatever is there: for
// when [Rules.Check] has found something wrong, which Add, going by what an ADD
// can meet, would not look for.
func (r *Rules) Rebuild(need Need) error {
	c, err := connect()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	if need.Guarded() {
		if err := r.buildGuard(c); err != nil {
			return fmt.Errorf("making nftables guard of IPv6 source addresses anew: %w", err)
		}
	}
	for _, f := range need.masqueraded() {
		if err := r.buildMasquerade(c, f, need); err != nil {
			return fmt.Errorf("making nftables chain %s %s %s anew: %w", familyName(f), tableName, natChain, err)
		}
	}
	return nil
}

// Check reports what of the need is missing, or nil.
func (r *Rules) Check(need Need) error {
	if !need.Masquerade && !need.Guarded() {
		return nil
	}
	c, err := connect()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	var missing []error
	if need.Guarded() {
		missing = append(missing, checkRules(c, nftables.TableFamilyIPv6, guardChain, numberOfGuardRules))
	}
	for _, f := range need.masqueraded() {
		missing = append(missing, checkRules(c, f, natChain, 1), checkElements(c, f, need))
	}
	return errors.Join(missing...)
}

// Remove takes the addresses out of the masqueraded ones. The kernel then waits
// in the background until no packet can be using the elements, some tens of
// milliseconds; settle waits for the end of that, which is best done when
// everything else is done. It has to be called in any case.
func (r *Rules) Remove(need Need) (settle func(), err error) {
	if len(need.masqueraded()) == 0 {
		return func() {}, nil
	}
	c, err := connect()
	if err != nil {
		return func() {}, err
	}
	// What waits is the closing of the socket.
	settle = func() { _ = c.CloseLasting() }
	for _, f := range need.masqueraded() {
		if err := r.removeMasquerade(c, f, need); err != nil {
			return settle, fmt.Errorf("removing %v from nftables set %s %s %s: %w", need.ofFamily(f), familyName(f), tableName, masqueradeName, err)
		}
	}
	return settle, nil
}

// Clear removes the tables, when no attachment is left on the node. Where there
// are none it costs one question.
func (r *Rules) Clear() error {
	c, err := connect()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("listing nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name != tableName || !slices.Contains(families, t.Family) {
			continue
		}
		if err := r.removeTable(c, t.Family); err != nil {
			return fmt.Errorf("removing nftables table %s %s: %w", familyName(t.Family), tableName, err)
		}
	}
	return nil
}

// removeTable deletes a family's table, unless a set shows that somebody whose
// records are elsewhere still uses it.
func (r *Rules) removeTable(c *nftables.Conn, f nftables.TableFamily) error {
	elements, err := c.GetSetElements(masqueradeSet(f))
	if err == nil && len(elements) > 0 {
		return nil
	}
	if err := r.step("delete table " + familyName(f)); err != nil {
		return err
	}
	c.DelTable(table(f))
	return ignoreMissing(c.Flush())
}

// answerTimeout bounds how long a connection is used. Nothing may wait for ever for
// a kernel that does not answer.
const answerTimeout = 20 * time.Second

func connect() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(raw *netlink.Conn) error {
		// Longer than any transaction takes: ADD undoes what it made then.
		return raw.SetDeadline(time.Now().Add(answerTimeout))
	}))
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return c, nil
}

func (r *Rules) step(operation string) error {
	if r.Step == nil {
		return nil
	}
	return r.Step("nft " + operation)
}

func table(f nftables.TableFamily) *nftables.Table {
	return &nftables.Table{Family: f, Name: tableName}
}

func familyName(f nftables.TableFamily) string {
	if f == nftables.TableFamilyIPv6 {
		return "ip6"
	}
	return "ip"
}

// group is the interface group of pods, as nftables compares it.
var group = nativeUint32(kernel.Group)

// isMissing reports whether the kernel said that there is no such table, set,
// chain or element. Half of the library's questions pass the error on as text
// only.
func isMissing(err error) bool {
	return err != nil && (errors.Is(err, unix.ENOENT) || strings.HasSuffix(err.Error(), unix.ENOENT.Error()))
}

// ignoreMissing makes a deletion of what is not there no error.
func ignoreMissing(err error) error {
	if isMissing(err) {
		return nil
	}
	return err
}

// RemoveAll removes the tables, whoever uses them, and returns their names.
func (r *Rules) RemoveAll() (removed []string, err error) {
	c, err := connect()
	if err != nil {
		return nil, err
	}
	defer c.CloseLasting()
	tables, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("listing nftables tables: %w", err)
	}
	var errs []error
	for _, t := range tables {
		if t.Name != tableName || !slices.Contains(families, t.Family) {
			continue
		}
		name := "nftables table " + familyName(t.Family) + " " + tableName
		c.DelTable(table(t.Family))
		if err := ignoreMissing(c.Flush()); err != nil {
			errs = append(errs, fmt.Errorf("removing %s: %w", name, err))
			continue
		}
		removed = append(removed, name)
	}
	return removed, errors.Join(errs...)
}
