package service

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// KubeProxy returns what shows that kube-proxy balances in the caller's network
// namespace too, or did and left its rules: its nftables tables, and its chain
// KUBE-SERVICES of iptables (modes iptables and ipvs). That of the legacy variant of
// iptables cannot be seen by nftables, and is not looked for.
func KubeProxy() (traces []string, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	all, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("listing nftables tables: %w", err)
	}
	for _, t := range all {
		f := slices.IndexFunc(families[:], func(f family) bool { return f.table().Family == t.Family })
		switch {
		case f < 0:
		case t.Name == "kube-proxy":
			traces = append(traces, fmt.Sprintf("nftables table %s %s", families[f].name(), t.Name))
		case t.Name == "nat":
			const chain = "KUBE-SERVICES"
			// There are thousands of chains where kube-proxy has many Services,
			// so one is asked for.
			if _, err := conn.ListChain(t, chain); err == nil {
				program := [...]string{"iptables", "ip6tables"}[f]
				traces = append(traces, fmt.Sprintf("%s chain %s of table nat", program, chain))
			}
		}
	}
	slices.Sort(traces)
	return traces, nil
}
