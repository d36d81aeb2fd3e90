// Package plan is what the machine that tests run on and the one that boots it
// have to agree on.
package plan

import "time"

// Path is where the guest finds its plan.
const Path = "/plan.json"

// Plan is what a guest is to do.
type Plan struct {
	Port    string   // device for events, one JSON text a line
	Modules []string // to load at first, where the kernel has them
	Run     []Run    // one after another
}

// Run is a test binary's run.
type Run struct {
	Suite     string // its name in the table
	Package   string // its directory in the repository
	Directory string // where it runs, beside its testdata
	Binary    string
	Arguments []string
	Variables []string // of its environment: NAME=value
	Limit     time.Duration
}

// Event is what a guest says.
type Event struct {
	Kernel string `json:",omitempty"` // uname -r, once at the start
	Suite  string `json:",omitempty"`
	Line   string `json:",omitempty"` // of the suite's output
	// Ended says that the suite has: Failure is "" if its status was 0.
	Ended   bool          `json:",omitempty"`
	Failure string        `json:",omitempty"`
	Took    time.Duration `json:",omitempty"`
	Done    bool          `json:",omitempty"` // nothing else follows
	// Hangs says that the machine does no more: the suite's processes do not end
	// when they are killed.
	Hangs bool `json:",omitempty"`
}

// Heartbeat is how often a guest says something, an empty event if there is nothing
// else: one that is silent for much longer does not run any more.
const Heartbeat = 5 * time.Second
