//go:build race

package binaries

const raceDetector = true
