package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// amount says how much is measured.
type amount struct {
	rounds       int // of ADD and DEL of everybody, in turn
	pods, atOnce int // of a burst
	bursts       int
	few, many    int // attachments on a node, flatnet
	manyPeer     int // the same, ptp
	manyDual     int // the same, flatnet with two families
	reservations int // in flatnet-ipam's store
	peerRecords  int // in host-local's
}

var (
	full = amount{
		rounds: 100, pods: 200, atOnce: 16, bursts: 7,
		few: 10, many: 2000, manyPeer: 500, manyDual: 500, reservations: 50000, peerRecords: 10000,
	}
	smoke = amount{
		rounds: 3, pods: 20, atOnce: 16, bursts: 1,
		few: 2, many: 20, manyPeer: 20, manyDual: 20, reservations: 1000, peerRecords: 1000,
	}
)

// bench is one run of the benchmark.
type bench struct {
	ours, peers, floor string // directories of programs
	amount             amount
	missing            []string // programs that were to be measured and are not there
	made               int      // directories made by directory
}

// outline is a section of the report before it is measured.
type outline struct {
	name, title string
	measure     func(context.Context, *bench) (section, error)
}

var sections = []outline{
	{"size", "Size and memory", measureSize},
	{"latency", "One pod", measureLatency},
	{"burst", "A burst of pods", measureBurst},
	{"allocator", "The allocator alone", measureAllocator},
	{"growth", "Many pods on the node", measureGrowth},
}

// present returns those contenders whose programs are there; the others' are
// remembered and told.
func (b *bench) present(all []contender) []contender {
	var there []contender
	for _, c := range all {
		complete := true
		for _, name := range c.programs {
			path := filepath.Join(c.directory, name)
			if _, err := os.Stat(path); err == nil {
				continue
			}
			complete = false
			if !slices.Contains(b.missing, path) {
				b.missing = append(b.missing, path)
				fmt.Printf("%s is not there: %s is not measured\n\n", path, c.name)
			}
		}
		if complete {
			there = append(there, c)
		}
	}
	return there
}

// complete is an error if something could not be measured.
func (b *bench) complete() error {
	if len(b.missing) == 0 {
		return nil
	}
	return fmt.Errorf("not measured for want of %s (make build makes those in bin; "+
		"apt-get install containernetworking-plugins those in %s)", strings.Join(b.missing, ", "), b.peers)
}

// directory makes a directory for state on a tmpfs, which ends with the process.
func (b *bench) directory(name string) (string, error) {
	b.made++
	path := fmt.Sprintf("/run/bench/%d-%s", b.made, name)
	return path, os.MkdirAll(path, 0o700)
}
