package netconf

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/ports"
)

// portMapping is an entry of the capability portMappings (CONVENTIONS.md).
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// portmapKeys are those of the plugin portmap. A configuration may bring them along when
// flatnet takes the plugin's place.
type portmapKeys struct {
	SNAT                 *bool    `json:"snat"`
	MasqAll              bool     `json:"masqAll"`
	MarkMasqBit          *int     `json:"markMasqBit"`
	ExternalSetMarkChain *string  `json:"externalSetMarkChain"`
	ConditionsV4         []string `json:"conditionsV4"`
	ConditionsV6         []string `json:"conditionsV6"`
	Backend              string   `json:"backend"`
}

// readPorts reads the ports that the pod is to have, and how.
func (c *Config) readPorts(d *document, _ *Arguments) error {
	c.Ports = ports.Wanted{KeepSource: d.SNAT != nil && !*d.SNAT, MasqueradeAll: d.MasqAll}
	if err := d.portmapKeys.validate(); err != nil {
		return err
	}
	for i, given := range d.RuntimeConfig.PortMappings {
		m, err := given.read(fmt.Sprintf("runtimeConfig.portMappings[%d]", i))
		if err != nil {
			return err
		}
		repeated := false
		for _, o := range c.Ports.Mappings {
			if !m.Overlaps(o) {
				continue
			}
			if m.ContainerPort != o.ContainerPort {
				return invalid(fmt.Sprintf("runtimeConfig.portMappings[%d].hostPort", i), given.HostPort,
					fmt.Sprintf("%s leads to the pod's port %d already: it can lead to one only", o, o.ContainerPort))
			}
			repeated = repeated || m == o
		}
		if !repeated {
			c.Ports.Mappings = append(c.Ports.Mappings, m)
		}
	}
	return nil
}

func (p portMapping) read(field string) (m ports.Mapping, err error) {
	const rule = "must be a port, 1 to 65535"
	for _, port := range []struct {
		name  string
		value int
		to    *uint16
	}{{"hostPort", p.HostPort, &m.HostPort}, {"containerPort", p.ContainerPort, &m.ContainerPort}} {
		if port.value < 1 || port.value > 65535 {
			return m, invalid(field+"."+port.name, port.value, rule)
		}
		*port.to = uint16(port.value)
	}
	m.Protocol = strings.ToLower(p.Protocol)
	if m.Protocol == "" {
		m.Protocol = "tcp"
	}
	if _, known := ports.ProtocolNumber(m.Protocol); !known {
		return m, invalid(field+".protocol", p.Protocol, "must be tcp, udp or sctp")
	}
	if p.HostIP == "" {
		return m, nil
	}
	m.HostIP, err = netip.ParseAddr(p.HostIP)
	if err != nil || m.HostIP.Zone() != "" || m.HostIP.IsMulticast() {
		return m, invalid(field+".hostIP", p.HostIP, "must be an IPv4 or IPv6 address of the node, or 0.0.0.0, ::, or empty for all")
	}
	m.HostIP = m.HostIP.Unmap()
	return m, nil
}

// validate refuses what flatnet cannot do in portmap's place. Marks for iptables' rules
// are not needed: what they are for is done without.
func (k portmapKeys) validate() error {
	for field, conditions := range map[string][]string{"conditionsV4": k.ConditionsV4, "conditionsV6": k.ConditionsV6} {
		if len(conditions) > 0 {
			return invalid(field, conditions, "matches of iptables cannot be given to flatnet's host ports: "+
				"leave it away, use a NetworkPolicy, or chain the plugin portmap with it behind flatnet, which then has no capability portMappings")
		}
	}
	const lastBit = 31
	if k.MarkMasqBit != nil && (*k.MarkMasqBit < 0 || *k.MarkMasqBit > lastBit) {
		return invalid("markMasqBit", *k.MarkMasqBit, "must be 0 to 31")
	}
	if k.MarkMasqBit != nil && k.ExternalSetMarkChain != nil {
		return invalid("markMasqBit", *k.MarkMasqBit, "must not be given together with externalSetMarkChain")
	}
	switch k.Backend {
	case "", "nftables", "iptables":
		return nil
	}
	return invalid("backend", k.Backend, "must be nftables or iptables; flatnet uses nftables in any case")
}
