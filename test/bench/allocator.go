package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// measureAllocator executes the IPAM plugins alone, with few reservations and many.
func measureAllocator(ctx context.Context, b *bench) (section, error) {
	s := newSite()
	defer s.Close()
	ours, theirs := "flatnet-ipam", "host-local"
	kinds := []struct {
		directory, program string
		reservations       int
	}{
		{b.ours, ours, b.amount.few}, {b.ours, ours, b.amount.reservations},
		{b.peers, theirs, b.amount.few}, {b.peers, theirs, b.amount.peerRecords},
	}
	var runners []*runner
	for _, kind := range kinds {
		made, err := b.runners(s, allocator(kind.directory, kind.program, kind.reservations))
		if err != nil {
			return section{}, err
		}
		for _, r := range made {
			if err := reserve(filepath.Join(r.state, "ipam", networkName), kind.reservations); err != nil {
				return section{}, err
			}
		}
		runners = append(runners, made...)
	}
	t, err := alternate(ctx, s, b.amount.rounds, runners)
	if err != nil {
		return section{}, err
	}
	named := func(program string, n int) sample { return t.add(allocator("", program, n).name) }
	few, many, peer := b.amount.few, b.amount.reservations, b.amount.peerRecords
	return section{table: t.table(), ratios: []ratio{
		atMost(fmt.Sprintf("ADD, %s: %d / %d", ours, many, few), named(ours, many), named(ours, few), 1.5),
		informative(fmt.Sprintf("ADD, %s: %d / %d", theirs, peer, few), named(theirs, peer), named(theirs, few)),
		informative(fmt.Sprintf("ADD, %s / %s: %d", ours, theirs, few), named(ours, few), named(theirs, few)),
	}}, nil
}

// reserve writes the first n addresses of the range as host-local records them: a
// file an address, with its owner in it, and one with the address that came last.
func reserve(directory string, n int) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	address := netip.MustParsePrefix(single.subnets[0]).Addr().Next()
	for i := range n {
		address = address.Next()
		record := fmt.Sprintf("container-%d\r\neth0", i)
		if err := os.WriteFile(filepath.Join(directory, address.String()), []byte(record), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(directory, "last_reserved_ip.0"), []byte(address.String()), 0o600)
}
