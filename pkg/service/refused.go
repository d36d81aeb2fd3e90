package service

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// features are parts of the rules that not every Service needs. Where the kernel
// refuses their rules, all others are there nevertheless; each with what it means to do
// without.
const (
	sourceRanges    = "loadBalancerSourceRanges cannot be checked, so that connections to the load balancer's addresses are dropped"
	policyLocal     = "traffic policy Local cannot be followed, so that connections are dropped"
	sessionAffinity = "session affinity does not work, so that each connection goes to any endpoint"
	// refusing concerns all: connections that lead nowhere, at once.
	refusing = "connections to what has no endpoints wait instead of being refused at once"
)

// needs reports whether a front with this target relies on a feature.
func (t *Target) needs(feature string) bool {
	switch feature {
	case sourceRanges:
		return len(t.sources) > 0
	case policyLocal:
		return t.split()
	case sessionAffinity:
		return t.affinity > 0
	}
	return false
}

// Refused is a feature that the kernel refuses to have rules for.
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

// refused lists what the wanted Services have to do without.
func (k *Keeper) refused(want *Ruleset) []Refused {
	var all []Refused
	for _, f := range families {
		refused := k.tables.Refused(f.table())
		for _, feature := range slices.Sorted(maps.Keys(refused)) {
			r := Refused{Without: feature, Reason: refused[feature]}
			names := map[Name]struct{}{}
			for front, t := range want.fronts {
				if f.owns(front.Address) && t.needs(feature) {
					names[t.Name.Service] = struct{}{}
				}
			}
			r.Services = slices.SortedFunc(maps.Keys(names), Name.Compare)
			if len(r.Services) > 0 || feature == refusing {
				all = append(all, r)
			}
		}
	}
	return all
}
