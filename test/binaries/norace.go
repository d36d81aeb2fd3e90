//go:build !race

package binaries

// RaceDetector says whether programs for tests are built with the race detector.
const RaceDetector = false
