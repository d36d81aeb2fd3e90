// Package suite lists what is run on every kernel.
package suite

import (
	"strings"
	"time"
)

// Suite is a package's tests.
type Suite struct {
	// Name is the package's directory in the repository. Behind a space is what the
	// interfaces of pods are, where that is not veth.
	Name string
	// Run and Skip choose tests, as -test.run and -test.skip do, where not all
	// are run on every kernel; Why says why the rest is left out.
	Run, Skip, Why string
	Short          bool          // with -test.short
	Limit          time.Duration // under emulation; 0 means [DefaultLimit]
}

// Package is the package's directory in the repository.
func (s Suite) Package() string {
	directory, _, _ := strings.Cut(s.Name, " ")
	return directory
}

// Device is what the interfaces of pods are; "" is the default.
func (s Suite) Device() string {
	_, device, _ := strings.Cut(s.Name, " ")
	return device
}

// All are the suites, in the order in which they run: what the later ones
// build on comes first. What touches no kernel is not among them.
var All = []Suite{
	{Name: "pkg/namespace"},
	{Name: "pkg/kernel"},
	{Name: "pkg/conntrack"},
	{Name: "pkg/xtables"},
	{Name: "pkg/wire"},
	{Name: "pkg/nft", Short: true, Why: "random histories, all but a few: time, not another use of the kernel"},
	{
		Name: "pkg/plugin", Skip: "IsKilledAnywhere",
		Why: "a process for each of some forty places to be killed at; TestAddThatFailsAnywhereLeavesNothing stops at the same places",
	},
	{Name: "pkg/plugin netkit", Skip: "IsKilledAnywhere", Why: "the same", Limit: 15 * time.Minute},
	{Name: "pkg/rules", Short: true},
	{Name: "pkg/closed"},
	{Name: "pkg/ports"},
	{Name: "pkg/policy", Run: "TestKernelHasWhatIsWanted", Why: "what does not touch the kernel"},
	{
		Name: "pkg/fabric", Skip: "TestTenThousandTransitions", Short: true,
		Why: "random histories: thousands without a kernel, and all but a few with one",
	},
	{
		Name: "pkg/masquerade", Short: true, Skip: "TestLargeCluster",
		Why: "random histories, all but a few, and tables for thousands of nodes: time, not another use of the kernel",
	},
	{Name: "pkg/fastpath"},
	{Name: "pkg/host"},
	{
		Name: "pkg/service", Short: true,
		Run: "TestController$|TestControllerRetries|TestRemove|TestKubeProxy|TestLookup|TestConstantRules|TestKernelRandomChanges|TestForgottenFlows|TestWatch|TestSmallTransaction",
		Why: "the others do not touch the kernel, or send it many changes to see how long that takes; shorter random histories",
	},
	{
		Name: "pkg/install", Run: "TestPodsOfTheInstalledConfiguration|TestWatch",
		Why: "files: the same on every kernel",
	},
	{
		Name: "ipam", Run: "TestLocked|TestLockReplaced|TestNoTmpfile|TestGone|TestCollect|TestFullDisk|TestVanished|TestTakeover",
		Why: "allocation needs no kernel; locks, unnamed files and pods' namespaces do",
	},
	{
		Name: "test/conformance", Run: "TestPlugin/(A3|A4|A5|A7|A8|B|C)", Limit: 15 * time.Minute,
		Why: "the protocol (environment, configuration, versions, errors, delegation), which is the same everywhere; what plugins of others do",
	},
	{
		Name: "test/fabric", Limit: 15 * time.Minute,
		Run: "TestReach/two_subnets/.*/dual|TestKill/auto|TestRepair|TestForeignObjectsStay|TestSpoofing|TestMasquerade$/with$|TestForwardThatDrops|" +
			"TestCollect|TestSecondFlatnetdWaits|TestFlowtable|TestAddressOnDummy|TestSegmentsFitTheRoute|TestRoutersAnswersReachPods|TestTunnelIsInTheWay|" +
			"TestAnswersNeedNoAgent|TestAnswersAreTheFabrics|TestPodDevice|TestBothPodDevices",
		Skip: "TestRepair/.*(configuration|plugin)$",
		Why:  "one underlay instead of three, both families at once, kills in one mode; what flatnetd does with its input and with files, which is the same everywhere",
	},
	{
		Name: "test/service", Limit: 15 * time.Minute,
		Run: "TestReach/direct/IPv4|TestReach/vxlan/IPv6|TestAffinity/direct/IPv4|TestSCTP/vxlan|TestStaleFlows|TestRepair|TestSwitchedOff",
		Why: "each family in one mode; load, which emulation cannot carry",
	},
	{Name: "test/policy", Limit: 15 * time.Minute},
	{
		Name: "test/fastpath", Limit: 15 * time.Minute,
		Run:  "TestConnectionsTakeTheFastPath|TestPolicyInTheMiddle|TestWhatIsTranslated|TestHeadersOfDatagrams|TestSpoofedPackets|TestNarrowerWay|TestProgramsOfOthers|TestQdiscOfNewInterfaces|TestChangeWhile|TestLeavingTheFastPath",
		Skip: fastOnly,
		Why:  "what is idle for a while, is killed often or changes at random; the same by the kernel's path",
	},
	{
		Name: "test/fastpath netkit", Limit: 15 * time.Minute,
		Run:  "TestConnectionsTakeTheFastPath|TestWhatIsTranslated|TestHeadersOfDatagrams|TestSpoofedPackets|TestLeavingTheFastPath|TestProgramsOfOthers",
		Skip: fastOnly,
		Why:  "as with veth, but for policies, which know no interfaces",
	},
	{
		Name: "test/kernels/measure", Skip: "TestClsact",
		Why: "what is lost of 10,000 datagrams a second, which emulation loses by itself",
	},
}

// fastOnly leaves out the subtests of test/fastpath that take the kernel's path.
const fastOnly = "/kernel$|//kernel$"

// Without is what is run on kernels that lack something.
var Without = []Suite{{Name: "test/kernels/without"}}

// Lacks are what a kernel can be booted without, with the parameter for that.
var Lacks = map[string]string{
	"veth": "module_blacklist=veth", "ipv6": "ipv6.disable=1", "vxlan": "module_blacklist=vxlan",
	"nf_tables": "module_blacklist=nf_tables", "nft_masq": "module_blacklist=nft_masq",
	"nft_fib":      "module_blacklist=nft_fib_inet,nft_fib_ipv4,nft_fib_ipv6",
	"nf_conntrack": "module_blacklist=nf_conntrack", "nf_conntrack_netlink": "module_blacklist=nf_conntrack_netlink",
}

// DefaultLimit is how long a suite may take that says nothing else.
const DefaultLimit = 5 * time.Minute

// FullLimit is how long a suite may take that is run in full.
const FullLimit = 20 * time.Minute
