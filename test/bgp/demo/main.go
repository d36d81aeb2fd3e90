// Command demo shows BGP at work: two racks with two routers each, BIRD and FRR, a node in
// each rack that runs flatnetd, and a machine outside. Pods of different racks reach each
// other without a tunnel, the machine outside reaches pods and a Service, and a router dies.
//
//	make demo-bgp
//
// It runs as root. All machines are network namespaces that belong to this process alone,
// and end with it.
package main

import "github.com/flatnet-cni/flatnet/test/report"

func main() {
	report.Main("demo-bgp", []string{"flatnetd", "flatnet", "flatnet-ipam", "flatnet-bgp"}, run)
}
