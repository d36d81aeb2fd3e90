package service

import (
	"fmt"

	"github.com/google/nftables"
)

// Remove deletes both tables in the caller's network namespace, and returns those
// that were there. Established connections go on as long as another table
// translates addresses, and are cut otherwise. It does not need the program nft.
// Equivalent to: `nft delete table ip flatnet-services; nft delete table ip6 flatnet-services`.
func Remove() (removed []string, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	for _, f := range families {
		have, err := tables{}.read(f)
		if err != nil {
			return nil, fmt.Errorf("reading nftables table %s %s: %w", f.name(), TableName, err)
		}
		if have.exists {
			conn.DelTable(f.table())
			removed = append(removed, fmt.Sprintf("nftables table %s %s", f.name(), TableName))
		}
	}
	if len(removed) == 0 {
		return nil, nil
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("removing nftables tables %s: %w", TableName, err)
	}
	return removed, nil
}
