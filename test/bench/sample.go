package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// sample is a set of measurements of the same thing.
type sample []time.Duration

// median returns the middle of the sample, 0 if it is empty.
func (s sample) median() time.Duration { return s.quantile(0.5) }

// quantile returns the smallest measurement that a fraction q of the sample does not
// exceed (the nearest rank), 0 if the sample is empty.
func (s sample) quantile(q float64) time.Duration {
	return quantile(s, q)
}

func quantile[T cmp.Ordered](s []T, q float64) T {
	if len(s) == 0 {
		var zero T
		return zero
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(rank, 0)]
}

// milliseconds shows a duration with the digits that mean something.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms >= 100 {
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.2f", ms)
}
