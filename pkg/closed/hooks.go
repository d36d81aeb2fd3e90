package closed

import "github.com/flatnet-cni/flatnet/pkg/nft"

// By these chains the table of closed pods and that of policies are asked about the same
// packets: those that the node sends on. What belongs to a connection passes by the first
// rule; what is new is for the chain `new` of the table. Nobody writes to them.
var (
	// Forward is what every packet meets that the node forwards; those that it sends
	// itself (kubelet's probes) and those that are for itself do not pass here.
	Forward = nft.Chain{Name: "forward", Base: "type filter hook forward priority filter; policy accept;", Rules: []string{
		"ct state established,related accept",
		"goto new",
	}}
	// Output is for what passes a node without being forwarded: IPVS (kube-proxy's mode)
	// sends on what it has translated as if the node had sent it. It needs what not every
	// kernel has that has the rest (nft_fib), and nor does every node need it.
	Output = nft.Chain{Name: "output", Base: "type filter hook output priority filter; policy accept;", Rules: []string{
		"ct state established,related accept",
		"fib saddr type local accept",
		"goto new",
	}}
)
