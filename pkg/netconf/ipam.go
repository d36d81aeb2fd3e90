package netconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/flatnet-cni/flatnet/ipam"
	"github.com/flatnet-cni/flatnet/pkg/cni"
)

// IPAM is the section "ipam": where addresses come from.
type IPAM struct {
	// Type is the plugin to be executed; "" means the built-in allocator,
	// and then the rest is set.
	Type string

	DataDirectory string
	Pool          ipam.Pool
	Requested     []netip.Addr // addresses that the pod asks for
	Routes        []*types.Route
	ResolvConf    string // path of a file in the form of resolv.conf, or ""
}

// builtIn are the types that the built-in allocator serves.
var builtIn = []string{"", "host-local", "flatnet-ipam"}

// ipamDocument is the JSON form, which is host-local's.
type ipamDocument struct {
	ResolvConf string            `json:"resolvConf"`
	Routes     []json.RawMessage `json:"routes"`
	Ranges     json.RawMessage   `json:"ranges"`
	// A single range may stand in the section itself, the older form.
	Subnet json.RawMessage `json:"subnet"`
}

// readSource reads where addresses come from and where they are recorded.
func (c *Config) readSource(d *document, _ *Arguments) error {
	c.IPAM.DataDirectory = filepath.Join(c.StateDirectory, "ipam")
	var i struct {
		Type    string  `json:"type"`
		DataDir *string `json:"dataDir"`
	}
	if len(d.IPAM) == 0 {
		return nil
	}
	if err := json.Unmarshal(d.IPAM, &i); err != nil {
		return invalid("ipam", d.IPAM, cni.DescribeJSON(err))
	}
	if !c.isIPAM && !slices.Contains(builtIn, i.Type) {
		if strings.ContainsRune(i.Type, filepath.Separator) || i.Type == "." || i.Type == ".." {
			return invalid("ipam.type", i.Type, "must be the name of a plugin, not a path")
		}
		c.IPAM.Type = i.Type
		return nil
	}
	if i.DataDir != nil && *i.DataDir != "" {
		c.IPAM.DataDirectory = *i.DataDir
		return validateDirectory("ipam.dataDir", *i.DataDir)
	}
	return nil
}

// readAllocator reads what the built-in allocator hands out.
func (c *Config) readAllocator(d *document, arguments *Arguments) error {
	if len(d.IPAM) == 0 || string(d.IPAM) == "null" {
		return cni.Fail(types.ErrInvalidNetworkConfig, "missing ipam",
			`the configuration needs a key "ipam", for example {"ranges": [[{"subnet": "10.244.1.0/24"}]]}`)
	}
	if c.IPAM.Type != "" {
		return nil
	}
	var i ipamDocument
	if err := json.Unmarshal(d.IPAM, &i); err != nil {
		return invalid("ipam", d.IPAM, cni.DescribeJSON(err))
	}
	c.IPAM.ResolvConf = i.ResolvConf
	if err := c.readPool(d, &i); err != nil {
		return err
	}
	if err := c.readRequested(d, arguments); err != nil {
		return err
	}
	return c.readRoutes(i.Routes)
}

// readPool collects the ranges of the capability ipRanges, of the section
// itself and of its list, in this order, as host-local does.
func (c *Config) readPool(d *document, i *ipamDocument) error {
	add := func(name string, raw json.RawMessage) error {
		if len(raw) == 0 || string(raw) == "null" {
			return nil
		}
		pool, err := ipam.ParsePool(name, raw)
		if err != nil {
			return rangeError(err)
		}
		c.IPAM.Pool = append(c.IPAM.Pool, pool...)
		return nil
	}
	if err := add("runtimeConfig.ipRanges", d.RuntimeConfig.IPRanges); err != nil {
		return err
	}
	if len(i.Subnet) > 0 && string(i.Subnet) != "null" {
		var r ipam.Range
		if err := r.UnmarshalJSON(d.IPAM); err != nil {
			return rangeError(err)
		}
		c.IPAM.Pool = append(c.IPAM.Pool, ipam.RangeSet{r})
	}
	if err := add("ranges", i.Ranges); err != nil {
		return err
	}
	if len(c.IPAM.Pool) == 0 {
		return cni.Fail(types.ErrInvalidNetworkConfig, "missing ipam.ranges: no IP ranges specified",
			`for example "ranges": [[{"subnet": "10.244.1.0/24"}]]`)
	}
	if err := c.IPAM.Pool.Validate(); err != nil {
		return rangeError(err)
	}
	return c.limitFamilies()
}

func rangeError(err error) error {
	return cni.Fail(types.ErrInvalidNetworkConfig, "invalid ipam: "+err.Error(), "correct the range in the network configuration")
}

// limitFamilies keeps results of versions before 0.3.0 possible, which have one
// place for an address of each family.
func (c *Config) limitFamilies() error {
	count := map[bool]int{}
	for _, set := range c.IPAM.Pool {
		count[set[0].First.Is6()]++
	}
	if several, err := version.GreaterThanOrEqualTo(c.Version, "0.3.0"); err == nil && !several && (count[true] > 1 || count[false] > 1) {
		return cni.Fail(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("invalid ipam.ranges: %d sets, and cniVersion %s allows one of each family", len(c.IPAM.Pool), c.Version),
			"use cniVersion 0.3.0 or later")
	}
	return nil
}

// readRequested collects the addresses that the runtime asks for. Where it uses
// the capability ips or the convention args.cni.ips, CNI_ARGS does not count
// (CONVENTIONS.md, "args in network config").
func (c *Config) readRequested(d *document, arguments *Arguments) error {
	type source struct {
		field string
		texts []string
	}
	sources := []source{{"runtimeConfig.ips", d.RuntimeConfig.IPs}, {"args.cni.ips", d.Args.CNI.IPs}}
	if len(d.RuntimeConfig.IPs)+len(d.Args.CNI.IPs) == 0 && arguments.IP != "" {
		sources = append(sources, source{"CNI_ARGS IP", []string{arguments.IP}})
	}
	for _, s := range sources {
		for i, text := range s.texts {
			// A prefix length may stand behind; the range says the real one.
			bare, _, _ := strings.Cut(text, "/")
			address, err := netip.ParseAddr(bare)
			if err != nil || address.Zone() != "" {
				return invalid(fmt.Sprintf("%s[%d]", s.field, i), text, "must be an IP address")
			}
			if address = address.Unmap(); !slices.Contains(c.IPAM.Requested, address) {
				c.IPAM.Requested = append(c.IPAM.Requested, address)
			}
		}
	}
	return nil
}

func (c *Config) readRoutes(raw []json.RawMessage) error {
	for i, text := range raw {
		field := fmt.Sprintf("ipam.routes[%d]", i)
		var r types.Route
		if err := json.Unmarshal(text, &r); err != nil {
			return invalid(field, text, err.Error())
		}
		if err := ValidateRoute(&r); err != nil {
			return invalid(field, text, err.Error())
		}
		c.IPAM.Routes = append(c.IPAM.Routes, &r)
	}
	return nil
}

// ValidateRoute checks what the kernel would misunderstand, and removes host
// bits from the destination.
func ValidateRoute(r *types.Route) error {
	ones, bits := r.Dst.Mask.Size()
	switch {
	case r.Dst.IP == nil || bits == 0:
		return errors.New("dst must be a network in CIDR notation")
	case r.MTU < 0 || r.AdvMSS < 0 || r.Priority < 0:
		return errors.New("mtu, advmss and priority must not be negative")
	case r.Table != nil && *r.Table < 0:
		return errors.New("table must not be negative")
	case r.Scope != nil && (*r.Scope < 0 || *r.Scope > 255):
		return errors.New("scope must be 0 to 255")
	}
	if v4 := r.Dst.IP.To4(); v4 != nil {
		r.Dst.IP = v4
	}
	if len(r.Dst.IP)*8 != bits {
		return errors.New("dst must be a network in CIDR notation")
	}
	if r.GW != nil && (r.GW.To4() != nil) != (r.Dst.IP.To4() != nil) {
		return errors.New("gw must be of the family of dst")
	}
	r.Dst = net.IPNet{IP: r.Dst.IP.Mask(r.Dst.Mask), Mask: net.CIDRMask(ones, bits)}
	return nil
}

// PreviousInPool returns the addresses of prevResult that the pool serves.
func (c *Config) PreviousInPool() []netip.Addr {
	if c.PrevResult == nil {
		return nil
	}
	var all []netip.Addr
	for _, ip := range c.PrevResult.IPs {
		address, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			continue
		}
		address = address.Unmap()
		if slices.ContainsFunc(c.IPAM.Pool, func(s ipam.RangeSet) bool { return s.RangeFor(address) != nil }) {
			all = append(all, address)
		}
	}
	return all
}
