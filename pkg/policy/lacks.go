package policy

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Features of the table that the kernel may refuse, while all else is in force.
const (
	besideIPVS = "policies with IPVS"
	logging    = "logging of what policies refuse"
)

// Lack is a part of what policies say that is not in force on a node, for a reason that is
// not the policies'.
type Lack struct {
	Object string `json:"object"`
	Reason string `json:"reason"`
	Advice string `json:"advice"`
}

// ipvs is whether the kernel balances Services by IPVS, kube-proxy's mode or somebody
// else's.
//
// What comes to one of its addresses is for the node itself, by the route; in the hook
// LOCAL_IN, after all filters, IPVS translates the destination and sends the packet on
// through LOCAL_OUT and POST_ROUTING (ip_vs_nat_send_or_cont). So it never passes FORWARD,
// and in LOCAL_OUT it has the pod's addresses at both ends: there the chain output has its
// say. Answers are forwarded, and pass FORWARD before IPVS translates them back.
//
// Without net.ipv4.vs.conntrack IPVS takes its packets out of connection tracking
// (ip_vs_notrack): an answer then belongs to no connection, and is judged as if it began
// one.
type ipvs struct {
	inUse  bool
	tracks bool
}

// ipvsService is how a service begins in /proc/net/ip_vs.
var ipvsService = regexp.MustCompile(`(?m)^(TCP|UDP|SCTP|FWM) `)

// findIPVS looks in the network namespace of the calling thread: at procNet, which is its
// /proc/net, at its sysctls, and for kube-proxy's interface.
func findIPVS(procNet, sysctls string) ipvs {
	var v ipvs
	if file, err := os.Open(filepath.Join(procNet, "ip_vs")); err == nil {
		head := make([]byte, 4<<10) // the first service is in the fourth line
		n, _ := file.Read(head)     // what cannot be read is not in use
		file.Close()
		v.inUse = ipvsService.Match(head[:n])
	}
	if _, err := net.InterfaceByName("kube-ipvs0"); err == nil {
		v.inUse = true
	}
	value, err := os.ReadFile(filepath.Join(sysctls, "net/ipv4/vs/conntrack"))
	v.tracks = err == nil && strings.TrimSpace(string(value)) != "0"
	return v
}

// lacks says what is not in force where the kernel refuses features, and beside IPVS.
func lacks(refused map[string]string, v ipvs) (all []Lack) {
	if why, is := refused[besideIPVS]; is && v.inUse {
		all = append(all, Lack{
			Object: "policies and IPVS",
			Reason: fmt.Sprintf("no policy of this node has a say about what pods of this node send to Services, which IPVS (kube-proxy) balances here, since the kernel refuses the rules for it: %s; "+
				"what goes to pods directly, and what comes from other nodes, is judged", why),
			Advice: "`modprobe nft_fib_inet` (CONFIG_NFT_FIB_INET), and flatnetd writes the rules within --resync; or run kube-proxy in another mode, or flatnetd with --services in its place",
		})
	}
	if v.inUse && !v.tracks {
		all = append(all, Lack{
			Object: "policies and IPVS",
			Reason: "answers that come through Services, which IPVS balances here, are judged as if they began a connection, and refused where the client's ingress or the server's egress is isolated: net.ipv4.vs.conntrack is 0, or the kernel has none; " +
				"what policies forbid is refused",
			Advice: "`sysctl -w net.ipv4.vs.conntrack=1`, which kube-proxy sets when it starts; the kernel needs CONFIG_IP_VS_NFCT",
		})
	}
	if why, is := refused[logging]; is {
		all = append(all, Lack{
			Object: "--log-drops",
			Reason: "what policies refuse is not logged: " + why,
			Advice: "`modprobe nft_log nfnetlink_log`, and flatnetd writes the rules within --resync; all policies are in force",
		})
	}
	return all
}
