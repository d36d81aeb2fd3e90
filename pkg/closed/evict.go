package closed

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// PolicyTable is that of the policies' rules. The agent makes it, and removes it.
var PolicyTable = nft.ID{Family: nft.INet, Name: "flatnet-policy"}

// Evicted is the set, in the table of the policies' rules, of addresses that somebody
// new has, of whom the rules do not know yet. To them such an address is nobody's: it is
// no pod that a selector chooses, and has no policies of its own. ADD puts addresses in,
// and the agent takes them out once the rules are the new one's.
func Evicted(ipv6 bool) nft.Set {
	if ipv6 {
		return nft.Set{Name: "evicted6", Type: "type ipv6_addr"}
	}
	return nft.Set{Name: "evicted4", Type: "type ipv4_addr"}
}

// Begin is for the addresses of a pod that is about to be attached: what the rules of
// policies say of whoever had them before holds no longer, and they are closed in the
// directions that are given. It is one transaction, and another one for each table
// that is missing.
func (t *Table) Begin(addresses []netip.Addr, ingress, egress bool) error {
	if len(addresses) == 0 {
		return nil
	}
	c, done, err := t.connect()
	if errors.Is(err, unix.EPROTONOSUPPORT) && !ingress && !egress {
		return nil // no nftables, and so no policies
	}
	if err != nil {
		return err
	}
	defer done()
	if !ingress && !egress {
		return t.evict(c, addresses)
	}
	both := func(to *nft.Transaction) {
		addEvicted(to, addresses)
		addClosed(to, addresses, ingress, egress)
	}
	join := &nft.Transaction{}
	both(join)
	err = t.run(c, "close", join)
	if missing(err) == id {
		err = t.build(c, "make closed", both)
	}
	if missing(err) == PolicyTable { // there are no rules
		return t.close(c, addresses, ingress, egress)
	}
	if err != nil {
		return fmt.Errorf("closing %v in nftables table %s: %w", addresses, id, err)
	}
	return nil
}

// missing is the table of which something is not there that was to be changed; the zero
// value where that is not why.
func missing(err error) nft.ID {
	var r *nft.Refusal
	if !errors.As(err, &r) || !errors.Is(err, unix.ENOENT) {
		return nft.ID{}
	}
	return r.Table
}

// evict only evicts.
func (t *Table) evict(c *nft.Conn, addresses []netip.Addr) error {
	evict := &nft.Transaction{}
	addEvicted(evict, addresses)
	err := t.run(c, "evict", evict)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // there are no rules
	}
	if err != nil {
		return fmt.Errorf("taking %v out of the rules of nftables table %s: %w", addresses, PolicyTable, err)
	}
	return nil
}

func addEvicted(to *nft.Transaction, addresses []netip.Addr) {
	for _, ipv6 := range []bool{false, true} {
		if of := ofFamily(addresses, ipv6); len(of) > 0 {
			to.AddElements(PolicyTable, Evicted(ipv6), of.All)
		}
	}
}
