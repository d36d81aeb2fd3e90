// Command flatnet is executed by a container runtime; see docs/configuration.md.
package main

import (
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/plugin"
)

// version is set by the linker.
var version = "development"

func main() {
	cni.Main("flatnet: CNI plugin, pods attached by routed veth pairs, version "+version, &plugin.Plugin{})
}
