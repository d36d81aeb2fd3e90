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
	// Announce is what this peer is told, in the place of [Config.Announce].
	Announce *Announce `json:"announce,omitempty"`

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
	PodCIDRs *bool              `json:"podCIDRs,omitempty"` // the node's own; nil is true
	Services []ServiceAddresses `json:"services,omitempty"`
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

// ServiceAddresses are addresses of Services: of a kind, and of those Services that have
// all that is said. A text alone is the kind, of all Services.
type ServiceAddresses struct {
	Kind string `json:"addresses"` // loadBalancer, external, cluster
	// Selector is one of the Services' labels.
	Selector string `json:"selector,omitempty"`
	// LoadBalancerClass is the Services' spec.loadBalancerClass.
	LoadBalancerClass string `json:"loadBalancerClass,omitempty"`

	selector  labels.Selector
	malformed error
}

// UnmarshalJSON reads a text or an object. What is wrong with it is told with its key, by
// [Parse].
func (s *ServiceAddresses) UnmarshalJSON(raw []byte) error {
	type object ServiceAddresses
	if bytes.HasPrefix(raw, []byte("{")) {
		strict, err := kjson.UnmarshalStrict(raw, (*object)(s))
		s.malformed = errors.Join(append(strict, err)...)
	} else if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &s.Kind); err != nil {
		s.malformed = fmt.Errorf("%s is neither a kind of addresses nor {addresses: …}", raw)
	}
	return nil
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
