package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/crowd"
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

	pathRounds int           // of everybody's data path, in turn
	flows      int           // that are remembered beside the one that is measured
	window     time.Duration // of one measurement of it
	clusters   []int         // nodes
	changes    int           // of one node
	idle       time.Duration // while nothing happens
	repairs    int           // of each kind of damage, in turn

	supplies        []size // of Services
	firstSyncs      int    // of everybody's agent, in turn
	endpointChanges int    // in turn
	connections     int    // of everybody, in turn

	crowds        []crowd.Crowd // clusters with policies
	policyChanges int           // of each kind
	opened        int           // pods at once, which begin closed
	forbidden     int           // connections, one after the other

	bandwidthRounds int           // of everybody, in turn
	bandwidthWindow time.Duration // of one measurement

	ports []portsOfNode // of the nodes to whose ports connections are opened
}

// size is so many Services, of so many endpoints each.
type size struct {
	services, endpoints int
	byDefault           bool // kube-proxy takes part with its default settings too
}

var (
	full = amount{
		rounds: 100, pods: 200, atOnce: 16, bursts: 7,
		few: 10, many: 2000, manyPeer: 500, manyDual: 500, reservations: 50000, peerRecords: 10000,
		pathRounds: 15, window: 300 * time.Millisecond, flows: 100_000,
		clusters: []int{10, 100, 1000, 5000}, changes: 21, idle: 65 * time.Second, repairs: 21,
		supplies: []size{{10, 10, true}, {1000, 10, false}, {10000, 10, false}, {1, 5000, false}}, firstSyncs: 3, endpointChanges: 41, connections: 2000,
		crowds: []crowd.Crowd{
			{Namespaces: 500, Policies: 1000, Pods: 10_000, Here: 30}, {Namespaces: 500, Policies: 1000, Pods: 10_000, Here: 110},
			{Namespaces: 500, Policies: 1000, Pods: 100_000, Here: 30},
		},
		policyChanges: 21, opened: 60, forbidden: 7,
		bandwidthRounds: 2, bandwidthWindow: 3 * time.Second,
		ports: []portsOfNode{{pods: 1, each: 1}, {pods: 10, each: 100}},
	}
	smoke = amount{
		rounds: 3, pods: 20, atOnce: 16, bursts: 1,
		few: 2, many: 20, manyPeer: 20, manyDual: 20, reservations: 1000, peerRecords: 1000,
		pathRounds: 1, window: 10 * time.Millisecond, flows: 1000,
		clusters: []int{10, 20}, changes: 2, idle: 200 * time.Millisecond, repairs: 1,
		supplies: []size{{2, 3, true}, {20, 3, false}}, firstSyncs: 1, endpointChanges: 2, connections: 50,
		crowds:        []crowd.Crowd{{Namespaces: 5, Policies: 10, Pods: 50, Here: 3}, {Namespaces: 5, Policies: 10, Pods: 100, Here: 3}},
		policyChanges: 2, opened: 4, forbidden: 1,
		bandwidthRounds: 1, bandwidthWindow: 100 * time.Millisecond,
		ports: []portsOfNode{{pods: 1, each: 1}, {pods: 2, each: 3}},
	}
)

// bench is one run of the benchmark.
type bench struct {
	ours, peers, floor string // directories of programs
	before             string // that of an older flatnet, if one was given
	amount             amount
	contenders         *regexp.Regexp // of the data path, that take part
	missing            []string       // programs that were to be measured and are not there
	made               int            // directories made by directory
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
	{"path-node", "Data path: pods of one node", measurePath(sameNode)},
	{"path-direct", "Data path: pods of two nodes, direct", measurePath(direct)},
	{"path-vxlan", "Data path: pods of two nodes, vxlan", measurePath(vxlan)},
	{"path-flows", "Data path: many flows", measureFlows},
	{"scale", "Many nodes", measureScale},
	{"repair", "What somebody damages", measureRepair},
	{"services", "Services", measureServices},
	{"policies", "Policies", measurePolicies},
	{"bandwidth", "Bandwidth", measureBandwidth},
	{"ports", "Host ports", measurePorts},
	{"kubectl", "kubectl flatnet", measureKubectl},
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
		"apt-get install containernetworking-plugins those in %s; test/prepare.sh bench all others)", strings.Join(b.missing, ", "), b.peers)
}

// directory makes a directory for state on a tmpfs, which ends with the process.
func (b *bench) directory(name string) (string, error) {
	b.made++
	path := fmt.Sprintf("/run/bench/%d-%s", b.made, name)
	return path, os.MkdirAll(path, 0o700)
}
