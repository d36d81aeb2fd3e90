//go:build !race

package binaries

const raceDetector = false
