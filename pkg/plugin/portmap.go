package plugin

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Before flatnet gave host ports itself, the plugin portmap did, chained behind it. Its
// rules for a pod that was attached then go with that pod's DEL only; but runtimes call
// DEL with the list of plugins as it is now (containerd), which has no portmap any more,
// and portmap itself removes nothing unless it is told the ports. So DEL calls it, for
// pods that are to have ports and were given none here, as long as portmap is installed
// and something of it is on the node.

// endPortmap has portmap remove its rules of the pod.
func (j *job) endPortmap(ctx context.Context, given bool) error {
	if given || j.config.Ports.IsZero() {
		return nil
	}
	e := cni.Execution{Request: j.request, Kind: "plugin", Plugin: "portmap", Missing: "install it"}
	if _, found := e.Find(); !found {
		return nil
	}
	for _, backend := range portmapBackends() {
		var err error
		if e.Config, err = j.portmapConfig(backend); err != nil {
			return nil // a configuration of which nothing was understood
		}
		if _, err := e.Run(ctx, "DEL"); err != nil {
			message, _ := cni.Texts(err)
			return cni.Fail(cni.CodeDelegate, "removing what portmap made for the pod before flatnet gave host ports itself: "+message,
				"DEL is repeated; without the program portmap in CNI_PATH its rules are left alone")
		}
		j.log.Info("portmap removed its rules of the pod, if it had any from before flatnet gave host ports itself", "backend", backend)
	}
	return nil
}

// portmapConfig is what the runtime would give to portmap, with the backend that is
// meant: portmap looks into one only.
func (j *job) portmapConfig(backend string) ([]byte, error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(j.config.Raw, &given); err != nil {
		return nil, err
	}
	config := map[string]any{"type": "portmap", "backend": backend}
	for _, key := range []string{"cniVersion", "name", "runtimeConfig", "prevResult"} {
		if value, has := given[key]; has {
			config[key] = value
		}
	}
	return json.Marshal(config)
}

// portmapBackends returns those of which something may be on the node: its own table of
// nftables; a chain of iptables (of nft's kind), or tables of the old iptables, of which
// only iptables knows what they hold.
func portmapBackends() (backends []string) {
	ownTable, chains := false, false
	for _, path := range []string{"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"} {
		names, err := os.ReadFile(path)
		chains = chains || err == nil && slices.Contains(strings.Fields(string(names)), "nat")
	}
	if c, err := nft.Open(); err == nil {
		defer c.Close()
		has := func(f nft.Family, table, chain string) bool {
			there, err := c.HasChain(nft.ID{Family: f, Name: table}, chain)
			return err == nil && there
		}
		for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
			chains = chains || has(f, "nat", "CNI-HOSTPORT-DNAT")
			ownTable = ownTable || has(f, "cni_hostport", "hostports")
		}
	}
	if ownTable {
		backends = append(backends, "nftables")
	}
	if chains {
		backends = append(backends, "iptables")
	}
	return backends
}
