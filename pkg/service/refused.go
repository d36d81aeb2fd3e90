package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// feature is a part of the rules that not every Service needs. Where the kernel
// refuses its rules, all others are there nevertheless.
type feature uint8

const (
	needed feature = iota // by all Services
	sourceRanges
	policyLocal
	sessionAffinity
	refusing // connections that lead nowhere, at once
	numberOfFeatures
)

// spare is what a chain holds where the kernel refuses its rules: what is safe, and
// known to every kernel.
type spare struct {
	feature feature
	rules   []rule
}

// orElse gives the chain a spare.
func (c chain) orElse(f feature, texts ...string) chain {
	c.spare = spare{feature: f}
	for _, t := range texts {
		c.spare.rules = append(c.spare.rules, rule{text: t})
	}
	return c
}

// without says what it means to do without the feature.
func (f feature) without() string {
	switch f {
	case sourceRanges:
		return "loadBalancerSourceRanges cannot be checked, so that connections to the load balancer's addresses are dropped"
	case policyLocal:
		return "traffic policy Local cannot be followed, so that connections are dropped"
	case sessionAffinity:
		return "session affinity does not work, so that each connection goes to any endpoint"
	}
	return "connections to what has no endpoints wait instead of being refused at once"
}

// needs reports whether a front with this target relies on a feature.
func (t *Target) needs(f feature) bool {
	switch f {
	case sourceRanges:
		return len(t.sources) > 0
	case policyLocal:
		return t.split()
	case sessionAffinity:
		return t.affinity > 0
	}
	return false
}

// Refused is a feature that the kernel, or nft, refuses to have rules for.
type Refused struct {
	Without string // what that means
	Reason  string // in the words of who refused
	// Services need it; those of a feature that concerns all are not named.
	Services []Name
}

// String returns the sentence with the names of some Services.
func (r Refused) String() string {
	const most = 5
	text := r.Without + ": " + r.Reason
	if len(r.Services) == 0 {
		return text
	}
	var names []string
	for _, n := range r.Services[:min(most, len(r.Services))] {
		names = append(names, n.String())
	}
	if more := len(r.Services) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ") + ": " + text
}

// refusals are the features that are refused in each family, and why.
type refusals [len(families)][numberOfFeatures]string

// permitted returns the chain with rules that the kernel takes.
func (r *refusals) permitted(f family, c chain) chain {
	if c.spare.feature != needed && r[f][c.spare.feature] != "" {
		c.rules = c.spare.rules
	}
	return c
}

// findRefusals asks which of the features' rules are refused, without changing
// anything. It is empty where nothing is refused, or something that all Services
// need: without that there is no table.
// Equivalent to: `nft --check -f -`.
func (k *Keeper) findRefusals(ctx context.Context, want *Ruleset) (found refusals) {
	for _, f := range want.families() {
		try := func(tried feature) error {
			tx := &transaction{Transaction: k.nft.NewTransaction(), native: k.writer != nil}
			tx.addTable(f)
			chains := wantedChains(f, want)
			for _, c := range chains {
				tx.declareChain(f, c)
			}
			for _, c := range chains {
				if c.spare.feature == needed || c.spare.feature == tried {
					tx.writeRules(f, c)
				}
			}
			return k.nft.Check(ctx, tx.Transaction)
		}
		if try(needed) != nil {
			continue
		}
		for tried := needed + 1; tried < numberOfFeatures; tried++ {
			if err := try(tried); err != nil && ctx.Err() == nil {
				found[f][tried] = oneLine(err)
			}
		}
	}
	return found
}

// refused lists what the wanted Services have to do without.
func (k *Keeper) refused(want *Ruleset) []Refused {
	if k.refusals == (refusals{}) {
		return nil
	}
	var all []Refused
	for _, f := range families {
		for tried, reason := range k.refusals[f] {
			if reason == "" {
				continue
			}
			r := Refused{Without: feature(tried).without(), Reason: fmt.Sprintf("table %s %s: %s", f.name(), TableName, reason)}
			names := map[Name]struct{}{}
			for front, t := range want.fronts {
				if f.owns(front.Address) && t.needs(feature(tried)) {
					names[t.Name.Service] = struct{}{}
				}
			}
			for n := range names {
				r.Services = append(r.Services, n)
			}
			slices.SortFunc(r.Services, func(a, b Name) int { return strings.Compare(a.String(), b.String()) })
			if len(r.Services) > 0 || feature(tried) == refusing {
				all = append(all, r)
			}
		}
	}
	return all
}
