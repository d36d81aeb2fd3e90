package conformance

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// Why ptp 1.9.1 with host-local does not keep some rules.
const (
	skelPath      = "the library's skeleton demands CNI_PATH of every verb"
	bothWaysAsked = "host-local wants to grant the addresses of CNI_ARGS and of args together"
	overPrev      = "ptp does not read prevResult on ADD"
	innerError    = "the deferred release reads an outer err that the inner ones shadow, so the address leaks"
	noVethUndo    = "an ADD that fails in the pod does not remove the veth pair"
	routeExists   = "ptp takes a host route that exists already for its own, wherever it leads"
	needsNetns    = "ptp finds its interface by CNI_NETNS only: without it interface and host route stay"
	fileNetns     = "ptp tolerates a path that is missing, but not one that is no namespace"
	ipamFirst     = "ptp releases the address before it removes the interface"
	anyNetns      = "ptp deletes CNI_IFNAME in CNI_NETNS, whosever it is"
	mainTable     = "the library looks for routes in the main table only"
	anyAddress    = "host-local is content with any address of the container"
	podOnly       = "ptp's CHECK does not look at the host"
	noStatus      = "host-local has no STATUS"
	noGC          = "neither ptp nor host-local has GC; the skeleton answers with success"
	skelVersion   = "the skeleton prints the newest version, whatever it was asked in"
	skelError     = "the library's error object has no cniVersion"
	noIPAMUndo    = "ptp does not call DEL of an IPAM plugin whose ADD failed"
	afterTheFact  = "the skeleton looks whether CNI_NETNS is its own only after host-local has done its work and printed a result"
	noMetrics     = "the library does not pass a route's mtu and advmss to the kernel"
	noMTU         = "ptp does not put the mtu into interfaces"
	waitsForDAD   = "ptp waits for duplicate address detection of the pod's address, and its host side is not ready then"
	emptyRecord   = "host-local takes an address for reserved whatever is in its file"
	noCollection  = "host-local does not look whether a reservation's pod still exists"
	noRates       = "ptp leaves rates to the plugin bandwidth, which has the capability"
	vagueError    = "the library's errors do not always name the value"
)

// ptpShortcomings are the items that the reference plugin does not keep, and why.
var ptpShortcomings = map[string]string{
	"A1.13":   skelPath,
	"A2.26d":  bothWaysAsked,
	"A3.30":   overPrev,
	"A3.31b":  innerError + "; " + fileNetns,
	"A3.31c":  innerError,
	"A3.31e":  noVethUndo,
	"A3.31f":  noVethUndo,
	"A3.31i":  routeExists,
	"A4.36":   needsNetns,
	"A4.36b":  needsNetns,
	"A4.36c":  fileNetns,
	"A4.40":   ipamFirst,
	"A4.41":   anyNetns,
	"A4.41b":  anyNetns,
	"A5.47c":  anyAddress,
	"A5.47d":  podOnly,
	"A5.47e":  podOnly,
	"A5.47f":  podOnly,
	"A5.47g":  podOnly,
	"A5.47h":  podOnly,
	"A5.47i":  podOnly,
	"A5.47j":  podOnly,
	"A5.49":   mainTable,
	"A6.51":   noStatus,
	"A6.52":   noStatus,
	"A6.52b":  noStatus,
	"A7.57":   noGC,
	"A7.57b":  noGC,
	"A7.57c":  noGC,
	"A7.58b":  noGC,
	"A7.59":   noGC,
	"A7.59b":  noGC,
	"A7.60":   noGC,
	"A7.61":   noGC,
	"A7.62":   noGC,
	"A7.65":   noGC,
	"A7.65b":  noGC,
	"A9.74c":  skelVersion,
	"A10.75b": skelError,
	"A11.79c": noIPAMUndo,
	"A11.79d": innerError,
	"A12.80b": needsNetns,
	"A12.84":  needsNetns + "; " + routeExists,
	"B1":      needsNetns + "; " + routeExists,
	"B2":      afterTheFact,
	"B2b":     afterTheFact,
	"B3b":     noMetrics,
	"B3c":     noMetrics,
	"B4":      noMTU,
	"B5":      waitsForDAD,
	"B6":      vagueError,
	"B6b":     vagueError,
	"B8":      emptyRecord,
	"B9":      noCollection,
	"B10":     "ptp gives veth pairs the kernel's default",
	"C1.4":    noGC,
	"C1.6":    afterTheFact,
	"C4.7":    "rules that portmap made stay where a list without it is deleted",
	"C4.8":    noRates,
}

func TestReferencePtp(t *testing.T) {
	directory := reference.Build(t)
	suite(t, plugin{path: filepath.Join(directory, "ptp"), search: []string{directory}, misfortune: stillTentative}, ptpShortcomings)
}

// stillTentative tells an ADD that gave up waiting for duplicate address
// detection. ptp waits five seconds for it; where sixty namespaces come and go at
// once, the kernel may take longer.
func stillTentative(seen string) bool {
	return strings.Contains(seen, "still has tentative addresses")
}
