// Package suite lists what is run on every kernel.
package suite

import "time"

// Suite is a package's tests.
type Suite struct {
	Name string // the package's directory in the repository
	// Run and Skip choose tests, as -test.run and -test.skip do, where not all
	// are run on every kernel; Why says why the rest is left out.
	Run, Skip, Why string
	Short          bool          // with -test.short
	Limit          time.Duration // under emulation; 0 means two minutes
}

// All are the suites, in the order in which they run: what the later ones
// build on comes first.
var All = []Suite{
	{Name: "pkg/kernel"},
	{Name: "pkg/wire"},
	{Name: "pkg/plugin"},
	{Name: "pkg/rules"},
	{Name: "pkg/fabric"},
	{Name: "pkg/masquerade"},
	{Name: "pkg/host"},
	{Name: "pkg/service"},
	{Name: "pkg/agent"},
	{Name: "pkg/install"},
	{Name: "ipam"},
	{Name: "test/netlab"},
	{Name: "test/cluster"},
	{Name: "test/conformance"},
	{Name: "test/ipam"},
	{Name: "test/demo"},
	{Name: "test/fabric"},
	{Name: "test/service"},
}

// DefaultLimit is how long a suite may take that says nothing else.
const DefaultLimit = 2 * time.Minute

// FullLimit is how long a suite may take that is run in full.
const FullLimit = 20 * time.Minute
