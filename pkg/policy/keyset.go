package policy

import "github.com/flatnet-cni/flatnet/pkg/nft"

// keySet are the elements of a set, by their keys; there is nothing more to them. It is
// an [nft.Elements].
type keySet map[string]struct{}

// Len implements [nft.Elements].
func (k keySet) Len() int { return len(k) }

// All implements [nft.Elements].
func (k keySet) All(yield func(nft.Element) bool) {
	for key := range k {
		if !yield(nft.Element{Key: key}) {
			return
		}
	}
}

// Find implements [nft.Elements].
func (k keySet) Find(key string) (nft.Element, bool) {
	_, is := k[key]
	return nft.Element{Key: key}, is
}
