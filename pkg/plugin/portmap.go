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
	config, err := j.portmapConfig()
	if err != nil {
		return nil // a configuration of which nothing was understood
	}
	e := cni.Execution{Request: j.request, Kind: "plugin", Plugin: "portmap", Config: config}
	if _, found := e.Find(); !found || !portmapWasHere() {
		return nil
	}
	if _, err := e.Run(ctx, "DEL"); err != nil {
		message, _ := cni.Texts(err)
		return cni.Fail(cni.CodeDelegate, "removing what portmap made for the pod before flatnet gave host ports itself: "+message,
			"DEL is repeated; without the program portmap in CNI_PATH its rules are left alone")
	}
	j.log.Info("portmap removed its rules of the pod, which it made before flatnet gave host ports itself")
	return nil
}

// portmapConfig is what the runtime would give to portmap.
func (j *job) portmapConfig() ([]byte, error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(j.config.Raw, &given); err != nil {
		return nil, err
	}
	config := map[string]any{"type": "portmap"}
	for _, key := range []string{"cniVersion", "name", "runtimeConfig", "prevResult"} {
		if value, has := given[key]; has {
			config[key] = value
		}
	}
	return json.Marshal(config)
}

// portmapWasHere reports whether something of portmap's may be on the node: a chain of
// iptables (of nft's kind), its own table, or tables of the old iptables, of which only
// iptables knows what they hold.
func portmapWasHere() bool {
	for _, path := range []string{"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"} {
		names, err := os.ReadFile(path)
		if err == nil && slices.Contains(strings.Fields(string(names)), "nat") {
			return true
		}
	}
	c, err := nft.Open()
	if err != nil {
		return false
	}
	defer c.Close()
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		for table, chain := range map[string]string{"nat": "CNI-HOSTPORT-DNAT", "cni_hostport": "hostports"} {
			if there, err := c.HasChain(nft.ID{Family: f, Name: table}, chain); err == nil && there {
				return true
			}
		}
	}
	return false
}
