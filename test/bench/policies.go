package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// measurePolicies measures what it takes to keep policies in large clusters, what they
// cost traffic, and how soon a pod is open and a connection ended.
func measurePolicies(ctx context.Context, b *bench) (section, error) {
	programs, err := filepath.Abs(b.ours)
	if err != nil {
		return section{}, err
	}
	if len(b.present([]contender{{name: "flatnetd", directory: programs, programs: []string{"flatnetd", "flatnet"}}})) == 0 {
		return section{}, nil
	}
	kept, err := b.keepPolicies(ctx)
	if err != nil {
		return section{}, fmt.Errorf("keeping policies: %w", err)
	}
	passed, err := b.passPolicies(ctx, programs)
	if err != nil {
		return section{}, fmt.Errorf("passing policies: %w", err)
	}
	waited, err := b.waitForPolicies(ctx, programs)
	if err != nil {
		return section{}, fmt.Errorf("waiting for policies: %w", err)
	}
	return section{
		table: keptTable(kept), compared: passedTable(passed),
		ratios: append(append(keptRatios(kept), passedRatios(passed)...), waited.ratios()...),
	}, nil
}

// within compares a duration with a limit.
func within(what string, d, limit time.Duration) ratio {
	return ratio{what: what, shown: milliseconds(d) + " ms", target: fmt.Sprintf("≤ %d ms", limit.Milliseconds()), met: d <= limit}
}

// notMore compares memory with a limit in megabytes.
func notMore(what string, m memory, limit float64) ratio {
	return ratio{what: what, shown: m.String() + " MB", target: fmt.Sprintf("≤ %g MB", limit), met: float64(m) <= limit*megabyte}
}
