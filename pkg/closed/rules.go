// Package closed keeps new pods closed that policies are about, from their first
// packet until the agent has their rules in place. The plugin knows from a file
// which namespaces these are (see [List]), and puts a pod's addresses into sets
// before it connects the pod; the agent takes them out.
//
//	table inet flatnet-closed {
//	    set ingress4 { type ipv4_addr; }
//	    set ingress6 { type ipv6_addr; }
//	    set egress4  { type ipv4_addr; }
//	    set egress6  { type ipv6_addr; }
//	    chain new {
//	        ip daddr @ingress4 counter drop
//	        ip6 daddr @ingress6 counter drop
//	        ip saddr @egress4 counter drop
//	        ip6 saddr @egress6 counter drop
//	    }
//	    chain forward {
//	        type filter hook forward priority filter; policy accept;
//	        ct state established,related accept
//	        goto new
//	    }
//	    chain output {
//	        type filter hook output priority filter; policy accept;
//	        ct state established,related accept
//	        fib saddr type local accept
//	        goto new
//	    }
//	}
//
// The first rule of both lets answers pass: a pod that is closed to others may itself ask,
// and the other way round. It also spares all that is under way the look into four
// sets. What conntrack takes for invalid, or does not track, gets no further than
// what is new. That nothing can be established to an address of before is seen to
// by DEL, which has the kernel forget its connections.
//
// What the node itself sends to its pods has a source of the node's and passes, as
// policies have it: kubelet's probes. With any other source it is IPVS, a mode of
// kube-proxy, that sends on what it has translated. What a pod sends to its own node
// passes, too, whatever policies there are.
//
// An address may also have rights that were its former holder's: see [Table.Begin].
package closed

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// id is the table's. Nobody writes to it.
var id = nft.ID{Family: nft.INet, Name: "flatnet-closed"}

// chains are all, each after those that it leads to.
func chains() []nft.Chain { return []nft.Chain{newChain, Forward, Output} }

var newChain = nft.Chain{Name: "new", Rules: []string{
	"ip daddr @ingress4 counter drop",
	"ip6 daddr @ingress6 counter drop",
	"ip saddr @egress4 counter drop",
	"ip6 saddr @egress6 counter drop",
}}

// counted are the directions of what newChain's rules drop.
var counted = []string{Ingress, Ingress, Egress, Egress}

// set is the set of a direction's addresses of one family.
func set(direction string, ipv6 bool) nft.Set {
	if ipv6 {
		return nft.Set{Name: direction + "6", Type: "type ipv6_addr"}
	}
	return nft.Set{Name: direction + "4", Type: "type ipv4_addr"}
}

func sets() []nft.Set {
	return []nft.Set{set(Ingress, false), set(Ingress, true), set(Egress, false), set(Egress, true)}
}

// build writes the table, whatever is left of it, and more in the same transaction.
// Where the kernel refuses that it is without what is there for IPVS only.
func (t *Table) build(c *nft.Conn, operation string, more func(*nft.Transaction)) (err error) {
	for _, without := range []string{"", Output.Name} {
		build := &nft.Transaction{}
		build.AddTable(id, "")
		for _, s := range sets() {
			build.AddSet(id, s)
		}
		for _, chain := range chains() {
			if chain.Name != without {
				build.RefillChain(id, chain)
			}
		}
		more(build)
		var refusal *nft.Refusal
		if err = t.run(c, operation, build); !errors.As(err, &refusal) {
			return err
		}
	}
	return err
}

// Mend makes the table's rules what they are to be, where it is there: it may be an
// earlier version's, or somebody may have changed it. Addresses that are closed stay so.
func (t *Table) Mend() error {
	c, done, err := t.connect()
	if err != nil {
		return err
	}
	defer done()
	there, err := c.Tables()
	if err != nil || !slices.Contains(there, id) {
		return err
	}
	right := true
	for _, chain := range chains() {
		if right && err == nil {
			_, right, err = c.Chain(id, chain)
		}
	}
	if err == nil && !right {
		err = t.build(c, "mend closed", func(*nft.Transaction) {})
	}
	if err != nil {
		return fmt.Errorf("mending nftables table %s: %w", id, err)
	}
	return nil
}

// Refused returns how many packets were dropped, by direction, since the table was made
// or mended. No table has dropped none.
func (t *Table) Refused() (map[string]uint64, error) {
	c, done, err := t.connect()
	if err != nil {
		return nil, err
	}
	defer done()
	var all map[string]uint64
	err = nft.Steadily(maxAttempts, func() error {
		all, err = refusedIn(c)
		return err
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return map[string]uint64{Ingress: 0, Egress: 0}, nil
	case err != nil:
		return nil, fmt.Errorf("reading the counters of nftables table %s: %w", id, err)
	}
	return all, nil
}

func refusedIn(c *nft.Conn) (map[string]uint64, error) {
	packets, err := c.Counted(id, newChain.Name)
	if err != nil {
		return nil, err
	}
	all := map[string]uint64{Ingress: 0, Egress: 0}
	for i, n := range packets[:min(len(packets), len(counted))] {
		all[counted[i]] += n
	}
	return all, nil
}
