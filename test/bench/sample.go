package main

import (
	"fmt"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/page"
)

// sample is a set of measurements of the same thing.
type sample []time.Duration

// median returns the middle of the sample, 0 if it is empty.
func (s sample) median() time.Duration { return s.quantile(0.5) }

// quantile returns the smallest measurement that a fraction q of the sample does not
// exceed (the nearest rank), 0 if the sample is empty.
func (s sample) quantile(q float64) time.Duration {
	return page.Quantile(s, q)
}

// milliseconds shows a duration with the digits that mean something.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms >= 100 {
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.2f", ms)
}
