package nft

import (
	"maps"
	"slices"
)

// refusal is why the kernel has no rules of some features, in its words.
type refusal map[string]string

// permitted returns the table with rules that the kernel takes.
func (k *Keeper) permitted(t *Table) *Table {
	refused := k.refusals[t.ID]
	if len(refused) == 0 {
		return t
	}
	spared := *t
	spared.Chains = slices.Clone(t.Chains)
	for i, c := range spared.Chains {
		if _, is := refused[c.Feature]; is && c.Feature != "" {
			spared.Chains[i].Rules = c.Spare
		}
	}
	return &spared
}

// findRefusals asks which of the features' rules are refused, without changing
// anything. It is empty where nothing is refused, or something without a feature.
func (k *Keeper) findRefusals(want []Table) map[ID]refusal {
	c, err := k.connected()
	if err != nil {
		return nil
	}
	all := map[ID]refusal{}
	for i := range want {
		features := map[string]bool{}
		for _, chain := range want[i].Chains {
			features[chain.Feature] = true
		}
		delete(features, "")
		if len(features) == 0 || c.try(&want[i], "") != nil {
			continue
		}
		for feature := range features {
			if err := c.try(&want[i], feature); err != nil {
				if all[want[i].ID] == nil {
					all[want[i].ID] = refusal{}
				}
				all[want[i].ID][feature] = err.Error()
			}
		}
	}
	return all
}

// try asks whether a table could be made with the rules of one feature and of none.
func (c *Conn) try(want *Table, feature string) error {
	part := *want
	part.Name += "-try" // whatever is there is of no concern
	part.Chains = slices.Clone(want.Chains)
	for i, chain := range part.Chains {
		if chain.Feature != "" && chain.Feature != feature {
			part.Chains[i].Rules = nil
		}
	}
	t := &Transaction{}
	t.declare(&part)
	t.fill(&part)
	return c.Check(t)
}

func equalRefusals(a, b map[ID]refusal) bool {
	return maps.EqualFunc(a, b, func(x, y refusal) bool { return maps.Equal(x, y) })
}

// Refused returns the features of a table's that the kernel refuses rules for, with
// what it says, as of the last comparison.
func (k *Keeper) Refused(id ID) map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.refusals[id])
}
