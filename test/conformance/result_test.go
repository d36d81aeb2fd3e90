package conformance

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// result is what ADD prints, in whatever version.
type result struct {
	CNIVersion string        `json:"cniVersion"`
	Interfaces []iface       `json:"interfaces"`
	IPs        []ipConfig    `json:"ips"`
	Routes     []routeConfig `json:"routes"`
	DNS        *dnsConfig    `json:"dns"`
	IP4        *oldIPConfig  `json:"ip4"` // up to 0.2.0
	IP6        *oldIPConfig  `json:"ip6"`
	raw        json.RawMessage
}

type iface struct {
	Name    string `json:"name"`
	Mac     string `json:"mac"`
	MTU     int    `json:"mtu"`
	Sandbox string `json:"sandbox"`
}

type ipConfig struct {
	Version   string       `json:"version"`
	Interface *int         `json:"interface"`
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway"`
}

type routeConfig struct {
	Dst      netip.Prefix `json:"dst"`
	GW       netip.Addr   `json:"gw"`
	MTU      int          `json:"mtu"`
	AdvMSS   int          `json:"advmss"`
	Priority int          `json:"priority"`
	Table    *int         `json:"table"`
	Scope    *int         `json:"scope"`
}

type dnsConfig struct {
	Nameservers []string `json:"nameservers"`
	Domain      string   `json:"domain"`
	Search      []string `json:"search"`
	Options     []string `json:"options"`
}

type oldIPConfig struct {
	IP      netip.Prefix  `json:"ip"`
	Gateway netip.Addr    `json:"gateway"`
	Routes  []routeConfig `json:"routes"`
}

// parseResult reads what ADD printed, which must be one JSON object.
func parseResult(stdout string) (result, error) {
	var r result
	found, err := documents(stdout)
	if err != nil {
		return r, err
	}
	if len(found) != 1 {
		return r, fmt.Errorf("%d JSON documents on stdout instead of one", len(found))
	}
	r.raw = found[0]
	if err := json.Unmarshal(r.raw, &r); err != nil {
		return r, fmt.Errorf("reading result: %w", err)
	}
	return r, nil
}

// addresses are those of all families and versions.
func (r result) addresses() []netip.Addr {
	var all []netip.Addr
	for _, ip := range r.IPs {
		all = append(all, ip.Address.Addr())
	}
	for _, ip := range []*oldIPConfig{r.IP4, r.IP6} {
		if ip != nil {
			all = append(all, ip.IP.Addr())
		}
	}
	return all
}

// host is the name of the first interface that is not in a sandbox.
func (r result) host() (string, error) {
	for _, i := range r.Interfaces {
		if i.Sandbox == "" {
			return i.Name, nil
		}
	}
	return "", fmt.Errorf("the result has no interface of the host: %s", r.raw)
}

// fields returns the top level of the result.
func (r result) fields() object {
	var top object
	json.Unmarshal(r.raw, &top)
	return top
}
