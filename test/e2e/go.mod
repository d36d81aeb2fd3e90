// A cluster of real Kubernetes components on one machine, and the tests that
// run on it. A module of its own, apart from flatnet's dependencies.
module github.com/flatnet-cni/flatnet/test/e2e

go 1.26.0

require (
	github.com/flatnet-cni/flatnet v0.0.0
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	golang.org/x/sys v0.49.0
)

replace github.com/flatnet-cni/flatnet => ../..
