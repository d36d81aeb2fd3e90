package bgp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

// Config is what the user decides, for all nodes alike: --bgp-config.
type Config struct {
	// ASN is the autonomous system of the nodes.
	ASN uint32 `json:"asn"`
	// RouterID is an IPv4 address, or empty for the node's first one. One without IPv4
	// gets a number made of its name.
	RouterID string `json:"routerID,omitempty"`
	// ListenPort is where others may connect to; 0 listens nowhere.
	ListenPort *int `json:"listenPort,omitempty"`
	// RestartTime is how long routers are asked to keep the node's routes while flatnetd is
	// away, and how long routes are kept in the kernel that no router has sent again.
	RestartTime Duration `json:"restartTime,omitempty"`
	Peers       []Peer   `json:"peers,omitempty"`
	Mesh        *Mesh    `json:"mesh,omitempty"`
	Announce    Announce `json:"announce,omitempty"`
	Accept      Accept   `json:"accept,omitempty"`
}

// Peer is a router, or whoever else speaks BGP.
type Peer struct {
	Name    string `json:"name,omitempty"`
	Address string `json:"address,omitempty"`
	// Interface is in the place of Address where the peer is the one router on it, known by
	// its link-local address.
	Interface    string   `json:"interface,omitempty"`
	ASN          uint32   `json:"asn"`
	Port         int      `json:"port,omitempty"`
	PasswordFile string   `json:"passwordFile,omitempty"`
	Multihop     int      `json:"multihop,omitempty"` // TTL of packets to the peer; 0 is 1
	HoldTime     Duration `json:"holdTime,omitempty"`
	ConnectRetry Duration `json:"connectRetry,omitempty"`
	Families     []string `json:"families,omitempty"` // ipv4, ipv6
	// KeepRoutes keeps the peer's routes while it restarts, for as long as it asks.
	KeepRoutes bool `json:"keepRoutes,omitempty"`
	// Nodes is a label selector: which nodes speak to the peer. Empty is all.
	Nodes string `json:"nodes,omitempty"`

	address  netip.Addr
	families []Family
	selector labels.Selector
}

// Mesh makes all nodes peers of each other, in their own autonomous system.
type Mesh struct {
	PasswordFile string   `json:"passwordFile,omitempty"`
	HoldTime     Duration `json:"holdTime,omitempty"`
}

// Announce is what peers are told.
type Announce struct {
	PodCIDRs *bool `json:"podCIDRs,omitempty"` // the node's own; nil is true
	// Services are kinds of addresses: loadBalancer, external, cluster.
	Services []string `json:"services,omitempty"`
	// PrefixLength has Services' addresses told as the networks of this length that they
	// are in.
	PrefixLength struct {
		IPv4 int `json:"ipv4,omitempty"`
		IPv6 int `json:"ipv6,omitempty"`
	} `json:"prefixLength,omitempty"`
	Communities []string `json:"communities,omitempty"`
	MED         *uint32  `json:"med,omitempty"`
	LocalPref   *uint32  `json:"localPref,omitempty"`
}

// Accept is what of that which peers tell becomes routes. The zero value accepts nothing.
type Accept struct {
	PodCIDRs     bool     `json:"podCIDRs,omitempty"`     // of other nodes
	DefaultRoute bool     `json:"defaultRoute,omitempty"` // 0.0.0.0/0 and ::/0
	Prefixes     []Within `json:"prefixes,omitempty"`
	// MaximumRoutes bounds the routes that are accepted.
	MaximumRoutes int `json:"maximumRoutes,omitempty"`
}

// Within stands for the networks inside of a prefix whose length is in a range.
type Within struct {
	Prefix    string `json:"prefix"`
	MinLength int    `json:"minLength,omitempty"` // 0: the prefix's own
	MaxLength int    `json:"maxLength,omitempty"` // 0: the shortest

	prefix netip.Prefix
}

// Duration is one as Go writes it: 9s, 2m.
type Duration time.Duration

// UnmarshalJSON reads a text.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	text, err := strconv.Unquote(string(raw))
	if err != nil {
		return fmt.Errorf("%s is not a time such as \"9s\"", raw)
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a time such as \"9s\"", text)
	}
	*d = Duration(parsed)
	return nil
}

// What a configuration does not say.
const (
	defaultRestartTime   = 2 * time.Minute
	defaultHoldTime      = 9 * time.Second
	defaultConnectRetry  = 5 * time.Second
	defaultMaximumRoutes = 10_000
	defaultPort          = 179
)

// Parse reads a configuration, all of which has to be understood. An error names the key.
func Parse(text []byte) (*Config, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty: give at least asn and peers")
	}
	raw, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	c := &Config{}
	strict, err := kjson.UnmarshalStrict(raw, c)
	if err != nil {
		return nil, errors.New(strings.NewReplacer("json: ", "", "Go struct field Config.", "key ").Replace(err.Error()))
	}
	if err := errors.Join(strict...); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// faults collects what is wrong, each with its key.
type faults []error

func (f *faults) add(key, format string, a ...any) {
	*f = append(*f, fmt.Errorf("%s: %w", key, fmt.Errorf(format, a...)))
}

func (f *faults) within(key string, value, least, most int) {
	if value < least || value > most {
		f.add(key, "%d is not within %d to %d", value, least, most)
	}
}

// duration fills in what is not said. RFC 4271 has hold times of 3 s and more, and seconds
// in 16 bits.
func (f *faults) duration(key string, d *Duration, usual time.Duration, least, most time.Duration) {
	if *d == 0 {
		*d = Duration(usual)
	}
	if v := time.Duration(*d); v < least || v > most || v%time.Second != 0 {
		f.add(key, "%s is not whole seconds within %s to %s", v, least, most)
	}
}

const mostSeconds = 1<<16 - 1

func (c *Config) validate() error {
	var f faults
	if c.ASN == 0 {
		f.add("asn", "is missing: give the number of the nodes' autonomous system, as 64512")
	}
	if c.RouterID != "" {
		if a, err := netip.ParseAddr(c.RouterID); err != nil || !a.Is4() || a.IsUnspecified() {
			f.add("routerID", "%q is not an IPv4 address; leave it out for each node's own", c.RouterID)
		}
	}
	if c.ListenPort == nil {
		port := defaultPort
		c.ListenPort = &port
	}
	f.within("listenPort", *c.ListenPort, 0, mostSeconds)
	const mostRestart = 4095 * time.Second // 12 bits, RFC 4724
	f.duration("restartTime", &c.RestartTime, defaultRestartTime, time.Second, mostRestart)
	if len(c.Peers) == 0 && c.Mesh == nil {
		f.add("peers", "is missing, and so is mesh: nobody would be told anything")
	}
	names := map[string]int{}
	for i := range c.Peers {
		c.Peers[i].validate(fmt.Sprintf("peers[%d]", i), &f)
		name := c.Peers[i].Name
		if before, taken := names[name]; taken {
			f.add(fmt.Sprintf("peers[%d].name", i), "%q is that of peers[%d]", name, before)
		}
		names[name] = i
	}
	if c.Mesh != nil {
		f.duration("mesh.holdTime", &c.Mesh.HoldTime, defaultHoldTime, 3*time.Second, mostSeconds*time.Second)
		if *c.ListenPort == 0 {
			f.add("listenPort", "0 listens nowhere, and mesh needs nodes that listen")
		}
		f.path("mesh.passwordFile", c.Mesh.PasswordFile)
	}
	c.Announce.validate(&f)
	c.Accept.validate(&f)
	return errors.Join(f...)
}

func (f *faults) path(key, path string) {
	if path != "" && !strings.HasPrefix(path, "/") {
		f.add(key, "%q is not an absolute path", path)
	}
}

func (p *Peer) validate(key string, f *faults) {
	var err error
	switch {
	case (p.Address == "") == (p.Interface == ""):
		f.add(key+".address", "give either address or interface")
	case p.Address != "":
		if p.address, err = netip.ParseAddr(p.Address); err != nil || p.address.IsUnspecified() || p.address.IsMulticast() || p.address.Is4In6() {
			f.add(key+".address", "%q is not the address of a machine", p.Address)
		} else if p.address.IsLinkLocalUnicast() && p.address.Zone() == "" {
			f.add(key+".address", "%q is link-local: give the interface as well, as in %s%%eth0", p.Address, p.Address)
		}
	case len(p.Interface) > 15 || strings.ContainsAny(p.Interface, "/ :%"):
		f.add(key+".interface", "%q is not the name of an interface", p.Interface)
	}
	if p.Name == "" {
		p.Name = p.Address + p.Interface
	}
	if p.ASN == 0 {
		f.add(key+".asn", "is missing: give the number of the peer's autonomous system")
	}
	if p.Port == 0 {
		p.Port = defaultPort
	}
	f.within(key+".port", p.Port, 1, mostSeconds)
	f.within(key+".multihop", p.Multihop, 0, 255)
	f.duration(key+".holdTime", &p.HoldTime, defaultHoldTime, 3*time.Second, mostSeconds*time.Second)
	f.duration(key+".connectRetry", &p.ConnectRetry, defaultConnectRetry, time.Second, time.Hour)
	f.path(key+".passwordFile", p.PasswordFile)
	if p.selector, err = labels.Parse(p.Nodes); err != nil {
		f.add(key+".nodes", "%q is not a label selector such as rack=a: %w", p.Nodes, err)
	}
	p.families = nil
	for i, text := range p.Families {
		family, known := message.FamilyNamed(text)
		if !known {
			f.add(fmt.Sprintf("%s.families[%d]", key, i), "%q is not ipv4 or ipv6", text)
			continue
		}
		p.families = append(p.families, family)
	}
	switch {
	case len(p.Families) > 0:
	case p.Interface != "" || p.address.IsLinkLocalUnicast():
		p.families = []Family{IPv4, IPv6}
	case p.address.Is6():
		p.families = []Family{IPv6}
	default:
		p.families = []Family{IPv4}
	}
}

func (a *Announce) validate(f *faults) {
	for i, kind := range a.Services {
		if kind != LoadBalancer && kind != External && kind != Cluster {
			f.add(fmt.Sprintf("announce.services[%d]", i), "%q is not %s, %s or %s", kind, LoadBalancer, External, Cluster)
		}
	}
	if a.PrefixLength.IPv4 == 0 {
		a.PrefixLength.IPv4 = 32
	}
	if a.PrefixLength.IPv6 == 0 {
		a.PrefixLength.IPv6 = 128
	}
	f.within("announce.prefixLength.ipv4", a.PrefixLength.IPv4, 8, 32)
	f.within("announce.prefixLength.ipv6", a.PrefixLength.IPv6, 16, 128)
	for i, text := range a.Communities {
		if _, err := message.ParseCommunity(text); err != nil {
			f.add(fmt.Sprintf("announce.communities[%d]", i), "%w", err)
		}
	}
}

func (a *Accept) validate(f *faults) {
	if a.MaximumRoutes == 0 {
		a.MaximumRoutes = defaultMaximumRoutes
	}
	f.within("accept.maximumRoutes", a.MaximumRoutes, 1, 1_000_000)
	for i := range a.Prefixes {
		w, key := &a.Prefixes[i], fmt.Sprintf("accept.prefixes[%d]", i)
		var err error
		if w.prefix, err = netip.ParsePrefix(w.Prefix); err != nil {
			f.add(key+".prefix", "%q is not a network such as 10.0.0.0/8", w.Prefix)
			continue
		}
		if w.prefix != w.prefix.Masked() {
			f.add(key+".prefix", "%q has host bits set: %s is meant", w.Prefix, w.prefix.Masked())
		}
		if w.MinLength == 0 {
			w.MinLength = w.prefix.Bits()
		}
		if w.MaxLength == 0 {
			w.MaxLength = w.MinLength
		}
		f.within(key+".minLength", w.MinLength, w.prefix.Bits(), w.prefix.Addr().BitLen())
		f.within(key+".maxLength", w.MaxLength, w.MinLength, w.prefix.Addr().BitLen())
	}
}
