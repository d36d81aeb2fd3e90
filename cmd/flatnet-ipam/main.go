// Command flatnet-ipam is executed by a container runtime; see docs/configuration.md.
package main

import (
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/ipamplugin"
)

// version is set by the linker.
var version = "development"

func main() {
	cni.Main("flatnet-ipam: CNI IPAM plugin, host-local addresses, version "+version, ipamplugin.Plugin{})
}
