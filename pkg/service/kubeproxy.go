package service

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/xtables"
)

// kubeProxyChain is of table nat of iptables, where kube-proxy balances in its modes
// iptables and ipvs. Others that begin with KUBE- may be kubelet's.
const kubeProxyChain = "KUBE-SERVICES"

// KubeProxy returns what shows that kube-proxy balances in the network namespace of
// the calling thread too, or did and left its rules: its nftables tables, and its chain
// KUBE-SERVICES of iptables-nft and of iptables-legacy.
func KubeProxy() (traces []string, err error) {
	conn, err := nft.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	all, err := conn.Tables()
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		f := slices.IndexFunc(families[:], func(f family) bool { return f.table().Family == t.Family })
		switch {
		case f < 0:
		case t.Name == "kube-proxy":
			traces = append(traces, fmt.Sprintf("nftables table %s %s", families[f].name(), t.Name))
		case t.Name == "nat":
			// There are thousands of chains where kube-proxy has many Services,
			// so one is asked for.
			if is, err := conn.HasChain(t, kubeProxyChain); err == nil && is {
				traces = append(traces, families[f].chainOfKubeProxy(""))
			}
		}
	}
	for _, f := range families {
		chains, err := xtables.Chains(f == ipv6, "nat")
		if err != nil {
			return nil, err
		}
		if slices.Contains(chains, kubeProxyChain) {
			traces = append(traces, f.chainOfKubeProxy(legacy))
		}
	}
	slices.Sort(traces)
	return traces, nil
}

// legacy is what the name of the older variant of iptables ends with.
const legacy = "-legacy"

func (f family) chainOfKubeProxy(variant string) string {
	return fmt.Sprintf("%s%s chain %s of table nat", [...]string{"iptables", "ip6tables"}[f], variant, kubeProxyChain)
}

// WithoutKubeProxy says how to get rid of what [KubeProxy] returned.
func WithoutKubeProxy(traces []string) string {
	advice := "end kube-proxy on this node and run `kube-proxy --cleanup`"
	if slices.ContainsFunc(traces, func(t string) bool { return strings.Contains(t, legacy) }) {
		advice += " where `iptables` is the legacy program, as `iptables --version` says, or reboot the node, which leaves none of these rules"
	}
	return advice
}
