// Package netconf reads the network configuration of flatnet's plugins: what
// stands in /etc/cni/net.d, what the runtime adds to it, and CNI_ARGS.
package netconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// Config is the configuration of one execution.
type Config struct {
	Version, Network string
	Raw              []byte // as received, for other plugins

	MTU                 int // bytes; 0 means that of the node's uplink
	IPMasq              bool
	NonMasqueradeCIDRs  []netip.Prefix
	HostInterfacePrefix string
	PodDevice           kernel.Device // what interfaces of new pods are
	StateDirectory      string
	Policies            string     // path of the list of closed namespaces; "" where there is none
	Clsact              bool       // make this qdisc at host interfaces
	DNS                 *types.DNS // nil where the configuration has none
	Log                 Log
	IPAM                IPAM
	MAC                 net.HardwareAddr // requested for the pod's interface, or nil
	Bandwidth           *wire.Bandwidth  // nil where nothing is limited
	Ports               ports.Wanted     // of the node, for the pod
	PrevResult          *current.Result  // nil where there is none

	// ValidAttachments is what GC is to keep; nil where the runtime did not
	// say, which is not the same as an empty list.
	ValidAttachments *[]types.GCAttachment

	isIPAM bool
}

// Log says what is logged, and where to.
type Log struct {
	Level string // debug, info, warn or error
	File  string // "" means standard error
}

// DefaultStateDirectory is where flatnet keeps what it has to remember. It is
// on a tmpfs: state ends with what it describes, at a reboot.
const DefaultStateDirectory = "/run/flatnet"

// AgentLock is the file that the flatnetd of a state directory has locked, alone
// (flock(2)), for as long as it runs.
func AgentLock(stateDirectory string) string { return filepath.Join(stateDirectory, "flatnetd.lock") }

const defaultPrefix = "veth"

// document is the JSON form of Config.
type document struct {
	MTU                 json.RawMessage `json:"mtu"`
	IPMasq              bool            `json:"ipMasq"`
	NonMasqueradeCIDRs  []string        `json:"nonMasqueradeCIDRs"`
	HostInterfacePrefix *string         `json:"hostInterfacePrefix"`
	PodDevice           *string         `json:"podDevice"`
	StateDir            *string         `json:"stateDir"`
	Policies            string          `json:"policies"`
	Clsact              bool            `json:"clsact"`
	DNS                 json.RawMessage `json:"dns"`
	LogLevel            string          `json:"logLevel"`
	LogFile             string          `json:"logFile"`
	IPAM                json.RawMessage `json:"ipam"`
	PrevResult          json.RawMessage `json:"prevResult"`
	RuntimeConfig       runtimeConfig   `json:"runtimeConfig"`
	bandwidthKeys
	portmapKeys
	Args struct {
		CNI cniArgs `json:"cni"`
	} `json:"args"`
	// libcni sends the list under both names; the first is the specification's.
	ValidAttachments  *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
	ValidAttachments2 *[]types.GCAttachment `json:"cni.dev/attachments"`
}

type runtimeConfig struct {
	IPs      []string        `json:"ips"`
	IPRanges json.RawMessage `json:"ipRanges"`
	MAC      string          `json:"mac"`

	Bandwidth    *bandwidthKeys `json:"bandwidth"`
	PortMappings []portMapping  `json:"portMappings"`
}

type cniArgs struct {
	IPs []string `json:"ips"`
	MAC string   `json:"mac"`
}

// Parse reads a request's configuration and CNI_ARGS. What is wrong is a typed
// CNI error that names the field and the value. DEL and GC get over mistakes in
// what they do not need: a configuration that was spoiled after ADD must not
// keep pods from being deleted.
func Parse(r *cni.Request) (*Config, *Arguments, error) { return parse(r, false) }

// ParseIPAM reads the configuration for a program that is the IPAM plugin
// itself, whatever name ipam.type calls it by.
func ParseIPAM(r *cni.Request) (*Config, *Arguments, error) { return parse(r, true) }

func parse(r *cni.Request, isIPAM bool) (*Config, *Arguments, error) {
	strict := r.Command != "DEL" && r.Command != "GC"
	arguments, err := ParseArguments(r.Args)
	if err != nil && strict {
		return nil, nil, err
	}
	var d document
	var mismatch *json.UnmarshalTypeError // of one field; the others are read
	if err := json.Unmarshal(r.Config, &d); err != nil && (strict || !errors.As(err, &mismatch)) {
		return nil, nil, cni.Fail(types.ErrDecodingFailure, "decoding network configuration: "+cni.DescribeJSON(err), "")
	}
	c := &Config{
		Version: r.Version, Network: r.Network, Raw: r.Config,
		IPMasq: d.IPMasq, Clsact: d.Clsact, HostInterfacePrefix: defaultPrefix, PodDevice: kernel.Veth, StateDirectory: DefaultStateDirectory,
		Log: Log{Level: d.LogLevel, File: d.LogFile}, ValidAttachments: d.ValidAttachments,
		isIPAM: isIPAM,
	}
	if c.ValidAttachments == nil {
		c.ValidAttachments = d.ValidAttachments2
	}
	for _, read := range []struct {
		f        func(*document, *Arguments) error
		required bool // by DEL and GC as well
	}{
		{c.readDirectory, true}, {c.readSource, true},
		{c.readPolicies, false}, {c.readMTU, false}, {c.readPrefix, false}, {c.readDevice, false}, {c.readExemptions, false}, {c.readDNS, false},
		{c.readLog, false}, {c.readPrevResult, false}, {c.readMAC, false}, {c.readPorts, false}, {c.readBandwidth, false}, {c.readAllocator, false},
	} {
		if err := read.f(&d, arguments); err != nil && (strict || read.required) {
			return nil, nil, err
		}
	}
	return c, arguments, nil
}

// invalid is the error for a field whose value cannot be used.
func invalid(field string, value any, rule string) error {
	return cni.Fail(types.ErrInvalidNetworkConfig, fmt.Sprintf("invalid %s %v: %s", field, show(value), rule), "correct "+field+" in the network configuration")
}

func show(value any) string {
	text := fmt.Sprintf("%v", value)
	if s, isString := value.(string); isString {
		text = fmt.Sprintf("%q", s)
	}
	if raw, isRaw := value.(json.RawMessage); isRaw {
		text = string(raw)
	}
	const most = 200
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

// Bounds of the MTU, in bytes: what IPv4 needs (RFC 791) and what an IPv4
// packet can hold.
const minMTU, maxMTU = 68, 65535

func (c *Config) readMTU(d *document, _ *Arguments) error {
	if len(d.MTU) == 0 || string(d.MTU) == "null" {
		return nil
	}
	if err := json.Unmarshal(d.MTU, &c.MTU); err != nil {
		return invalid("mtu", d.MTU, "must be a whole number of bytes, or 0 for that of the node's uplink")
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		return invalid("mtu", c.MTU, fmt.Sprintf("must be 0, or %d to %d bytes", minMTU, maxMTU))
	}
	return nil
}

func (c *Config) readPrefix(d *document, _ *Arguments) error {
	if d.HostInterfacePrefix == nil {
		return nil
	}
	prefix := *d.HostInterfacePrefix
	valid := len(prefix) >= 1 && len(prefix) <= attachment.MaxPrefix
	for _, r := range prefix {
		valid = valid && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	if !valid {
		return invalid("hostInterfacePrefix", prefix,
			fmt.Sprintf("must be 1 to %d letters, digits, hyphens or underscores", attachment.MaxPrefix))
	}
	c.HostInterfacePrefix = prefix
	return nil
}

// readDevice knows no choice by itself: what this kernel has is asked once, by flatnetd,
// and not by every ADD.
func (c *Config) readDevice(d *document, _ *Arguments) error {
	if d.PodDevice == nil {
		return nil
	}
	switch device := kernel.Device(*d.PodDevice); device {
	case kernel.Veth, kernel.Netkit:
		c.PodDevice = device
		return nil
	default:
		return invalid("podDevice", *d.PodDevice, fmt.Sprintf("must be %s or %s", kernel.Veth, kernel.Netkit))
	}
}

func (c *Config) readDirectory(d *document, _ *Arguments) error {
	if d.StateDir == nil {
		return nil
	}
	c.StateDirectory = *d.StateDir
	return validateDirectory("stateDir", c.StateDirectory)
}

func (c *Config) readPolicies(d *document, _ *Arguments) error {
	if d.Policies != "" && (!filepath.IsAbs(d.Policies) || strings.ContainsRune(d.Policies, 0)) {
		return invalid("policies", d.Policies, "must be the absolute path of a file, or empty")
	}
	c.Policies = d.Policies
	return nil
}

func validateDirectory(field, path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) == "/" || strings.ContainsRune(path, 0) {
		return invalid(field, path, "must be the absolute path of a directory other than /")
	}
	return nil
}

func (c *Config) readExemptions(d *document, _ *Arguments) error {
	for i, text := range d.NonMasqueradeCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix != prefix.Masked() {
			return invalid(fmt.Sprintf("nonMasqueradeCIDRs[%d]", i), text, "must be a network in CIDR notation without host bits, for example 10.244.0.0/16")
		}
		c.NonMasqueradeCIDRs = append(c.NonMasqueradeCIDRs, prefix)
	}
	return nil
}

// readDNS keeps the configuration's dns section only where it has a known key:
// then, even with empty lists, it takes the place of what IPAM says.
func (c *Config) readDNS(d *document, _ *Arguments) error {
	if len(d.DNS) == 0 || string(d.DNS) == "null" {
		return nil
	}
	var dns types.DNS
	if err := json.Unmarshal(d.DNS, &dns); err != nil {
		return invalid("dns", d.DNS, cni.DescribeJSON(err))
	}
	if dns.Nameservers != nil || dns.Search != nil || dns.Options != nil || dns.Domain != "" {
		c.DNS = &dns
	}
	return nil
}

func (c *Config) readLog(*document, *Arguments) error {
	switch c.Log.Level {
	case "":
		c.Log.Level = "error"
	case "debug", "info", "warn", "error":
	default:
		level := c.Log.Level
		c.Log.Level = "error"
		return invalid("logLevel", level, "must be debug, info, warn or error")
	}
	if file := c.Log.File; file != "" && !filepath.IsAbs(file) {
		c.Log.File = ""
		return invalid("logFile", file, "must be an absolute path, or empty for standard error")
	}
	return nil
}

func (c *Config) readPrevResult(d *document, _ *Arguments) error {
	if len(d.PrevResult) == 0 || string(d.PrevResult) == "null" {
		return nil
	}
	var raw map[string]any
	if err := json.Unmarshal(d.PrevResult, &raw); err != nil {
		return invalid("prevResult", d.PrevResult, "must be a JSON object")
	}
	conf := types.PluginConf{CNIVersion: c.Version, RawPrevResult: raw}
	if err := version.ParsePrevResult(&conf); err != nil {
		return invalid("prevResult", d.PrevResult, err.Error())
	}
	result, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return invalid("prevResult", d.PrevResult, err.Error())
	}
	c.PrevResult = result
	return nil
}

// readMAC takes the first that is given: the capability "mac", the convention
// args.cni.mac, or MAC of CNI_ARGS.
func (c *Config) readMAC(d *document, arguments *Arguments) error {
	for _, from := range []struct{ field, value string }{
		{"runtimeConfig.mac", d.RuntimeConfig.MAC}, {"args.cni.mac", d.Args.CNI.MAC}, {"CNI_ARGS MAC", arguments.MAC},
	} {
		if from.value == "" {
			continue
		}
		mac, err := net.ParseMAC(from.value)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || isZero(mac) {
			return invalid(from.field, from.value, "must be a unicast MAC address of 6 bytes")
		}
		c.MAC = mac
		return nil
	}
	return nil
}

func isZero(mac net.HardwareAddr) bool {
	for _, b := range mac {
		if b != 0 {
			return false
		}
	}
	return true
}
