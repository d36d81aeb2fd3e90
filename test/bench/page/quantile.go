package page

import (
	"cmp"
	"math"
	"slices"
)

// Quantile returns the smallest value that a fraction q of the sample does not
// exceed (the nearest rank; 0.5 is the median), and 0 if the sample is empty.
func Quantile[T cmp.Ordered](sample []T, q float64) T {
	if len(sample) == 0 {
		var zero T
		return zero
	}
	sorted := slices.Sorted(slices.Values(sample))
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(rank, 0)]
}
