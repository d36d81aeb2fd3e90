// Package conformance holds a black-box suite for CNI plugins that attach a pod
// to its node: it executes a plugin's binary in network namespaces, as a
// container runtime would, and looks at nothing but what the plugin prints and
// what it does to the kernel and to its state files.
//
//	go test ./test/conformance -v -run TestPlugin
//
// runs it against bin/flatnet (built if it is missing or older than its
// source) and prints a table of all items. Another plugin is put to the test with
//
//	FLATNET_CONFORMANCE_PLUGIN=/opt/cni/bin/ptp go test ./test/conformance -v -run TestPlugin
//
// and a single item with `-run TestPlugin/A3.28`. The plugin must accept an
// "ipam" section of type host-local, which it may serve itself; the reference
// IPAM plugins are in its CNI_PATH. It must attach pods so that pod and node
// can talk to each other.
//
// The items are numbered by what they are about:
//
//	A0 process protocol    A1 environment variables   A2 configuration on stdin
//	A3 ADD                 A4 DEL                     A5 CHECK
//	A6 STATUS              A7 GC                      A8 result
//	A9 VERSION             A10 error object           A11 delegation to IPAM plugins
//	A12 lifecycle          B what plugins are known to get wrong
//	C1 libcni              C2 containerd and kubelet  C3 cnitool
//	C4 chains of plugins
//
// MUST and SHOULD are those of the CNI specification, version 1.1.0, or of what
// runtimes and the CNI library rely on. Where specification and library
// disagree, an item accepts what satisfies both.
//
// [TestReferencePtp] is the control. It runs the same items against the CNI
// project's own ptp plugin with host-local, and fails unless exactly those
// items fail that are on a list together with the reason: a suite that cannot
// fail would prove nothing.
package conformance
