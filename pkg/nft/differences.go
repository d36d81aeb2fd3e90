package nft

import "fmt"

// Differences says what the kernel has otherwise than a part of a table is to have it:
// whether the table is there and in force, the part's chains, and its sets. Of a set that
// is in keys, and whose elements are no intervals, only the elements with these keys are
// read, each to be there where the set's Elements have it and nowhere else. What the part
// does not name is not looked at, and nothing is changed.
//
// Equivalent to: `nft list chain`, `nft get element` and `nft list set`.
func (k *Keeper) Differences(part Table, keys map[string][]string) (all []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connected()
	if err != nil {
		return nil, err
	}
	err = c.steady(func() (err error) {
		all, err = c.differences(k.permitted(&part), keys)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("comparing nftables table %s: %w", part.ID, err)
	}
	return all, nil
}

func (c *Conn) differences(part *Table, keys map[string][]string) (all []string, err error) {
	have, err := c.read(part.ID)
	switch {
	case err != nil:
		return nil, err
	case have == nil:
		return []string{"table is missing"}, nil
	case have.flags != 0:
		all = append(all, "table has flags") // dormant is one
	}
	e, err := compareObjects(partly{present{have, part.Family, nil}}, part, func(s Set) (extra, missing []Element, err error) {
		if keys[s.Name] == nil {
			return c.compareElements(part.ID, s, false)
		}
		return c.compareKeys(part.ID, s, keys[s.Name])
	})
	if err != nil {
		return nil, err
	}
	return append(all, e.found...), nil
}

// compareKeys is compareElements of a few elements.
func (c *Conn) compareKeys(id ID, s Set, keys []string) (extra, missing []Element, err error) {
	for _, key := range keys {
		want, wanted := s.Elements.Find(key)
		have, there, err := c.Element(id, s, key)
		if err != nil {
			return nil, nil, err
		}
		same := wanted == there && want.Value == have.Value
		if there && !same {
			extra = append(extra, have)
		}
		if wanted && !same {
			missing = append(missing, want)
		}
	}
	return extra, missing, nil
}

// partly is a table of which there may be more than what is wanted.
type partly struct{ present }

func (partly) setNames() []string { return nil }

func (partly) chainNames() (bases, others []string) { return nil, nil }
