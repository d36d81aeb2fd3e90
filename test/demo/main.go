// Command demo shows flatnet at work: three nodes on this machine that run
// flatnetd, two of them on one subnet and one behind a router, pods on each of
// them, and every pod reaching every other pod without address translation.
//
//	make build && go run ./test/demo
//
// Nodes and pods are network namespaces that belong to this process alone. They
// end with it, however it ends, and the machine's own network is never touched.
package main

import "github.com/flatnet-cni/flatnet/test/report"

func main() { report.Main("demo", []string{"flatnetd", "flatnet", "flatnet-ipam"}, run) }
