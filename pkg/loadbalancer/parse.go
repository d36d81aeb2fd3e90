package loadbalancer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file is the configuration as it is written.
type file struct {
	DefaultClass bool       `yaml:"defaultClass"`
	Pools        []filePool `yaml:"pools"`
}

type filePool struct {
	Name            string            `yaml:"name"`
	Addresses       []string          `yaml:"addresses"`
	Namespaces      []string          `yaml:"namespaces"`
	ServiceSelector map[string]string `yaml:"serviceSelector"`
	AutoAssign      *bool             `yaml:"autoAssign"`
	Layer2          *fileLayer2       `yaml:"layer2"`
}

type fileLayer2 struct {
	Interfaces   []string     `yaml:"interfaces"`
	WithoutLease WithoutLease `yaml:"withoutLease"`
}

// Parse reads a configuration. The error names the first key that is wrong, and its
// value. An empty text is a configuration without pools.
func Parse(text []byte) (*Config, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var f file
	if err := decoder.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, plain(err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second YAML document: put all pools into one list")
	}
	c := &Config{DefaultClass: f.DefaultClass}
	for i, p := range f.Pools {
		at := fmt.Sprintf("pools[%d]", i)
		pool, err := p.pool(at)
		if err != nil {
			return nil, err
		}
		if err := c.add(pool, at); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// unknownField is how the YAML package says that a key is unknown: by a type of Go's.
var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// plain makes an error of the YAML package one for people.
func plain(err error) error {
	text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
	text = strings.TrimPrefix(text, "unmarshal errors: ")
	return errors.New(unknownField.ReplaceAllString(text, "unknown key $1"))
}

// name is what a pool, and an interface, may be called.
var name = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

const longestInterface = 15 // IFNAMSIZ without the terminating zero

func (f filePool) pool(at string) (Pool, error) {
	p := Pool{Name: f.Name, Namespaces: f.Namespaces, Selector: f.ServiceSelector, AutoAssign: f.AutoAssign == nil || *f.AutoAssign}
	if !name.MatchString(f.Name) || len(f.Name) > 63 {
		return p, fmt.Errorf("%s.name: %q is not a name: letters, digits, dots and dashes, 63 at most", at, f.Name)
	}
	if len(f.Addresses) == 0 {
		return p, fmt.Errorf("%s.addresses: pool %s has none", at, f.Name)
	}
	for i, text := range f.Addresses {
		r, err := parseRange(text)
		if err != nil {
			return p, fmt.Errorf("%s.addresses[%d]: %w", at, i, err)
		}
		p.Ranges = append(p.Ranges, r)
	}
	for i, namespace := range f.Namespaces {
		if !name.MatchString(namespace) {
			return p, fmt.Errorf("%s.namespaces[%d]: %q is not the name of a namespace", at, i, namespace)
		}
	}
	if f.Layer2 == nil {
		return p, nil
	}
	if len(f.Layer2.Interfaces) == 0 {
		return p, fmt.Errorf("%s.layer2.interfaces: none is named: nobody would answer for the addresses; name interfaces, or leave layer2 out", at)
	}
	for i, link := range f.Layer2.Interfaces {
		if link == "" || len(link) > longestInterface || strings.ContainsAny(link, "/ \t\n:%,") {
			return p, fmt.Errorf("%s.layer2.interfaces[%d]: %q is not the name of an interface", at, i, link)
		}
	}
	switch p.Interfaces = f.Layer2.Interfaces; f.Layer2.WithoutLease {
	case "":
		p.WithoutLease = Together
	case Together, Stop, Answer:
		p.WithoutLease = f.Layer2.WithoutLease
	default:
		return p, fmt.Errorf("%s.layer2.withoutLease: %q is not together, stop or answer", at, f.Layer2.WithoutLease)
	}
	return p, nil
}

// add adds a pool, if it is at odds with none before.
func (c *Config) add(p Pool, at string) error {
	for i, r := range p.Ranges {
		for j, before := range p.Ranges[:i] {
			if r.overlaps(before) {
				return fmt.Errorf("%s.addresses[%d]: %s overlaps with addresses[%d], %s", at, i, r, j, before)
			}
		}
	}
	for k, other := range c.Pools {
		if other.Name == p.Name {
			return fmt.Errorf("%s.name: %q is the name of pools[%d] too", at, p.Name, k)
		}
		for i, r := range p.Ranges {
			for _, before := range other.Ranges {
				if r.overlaps(before) {
					return fmt.Errorf("%s.addresses[%d]: %s overlaps with %s of pool %s: an address is in one pool", at, i, r, before, other.Name)
				}
			}
		}
	}
	c.Pools = append(c.Pools, p)
	return nil
}

func (r Range) overlaps(o Range) bool { return r.Has(o.From) || o.Has(r.From) }

// parseRange reads a network, an address, or two addresses with a dash between.
func parseRange(text string) (r Range, err error) {
	from, to, isRange := strings.Cut(text, "-")
	switch {
	case isRange:
		if r.From, err = parseAddress(strings.TrimSpace(from)); err == nil {
			r.To, err = parseAddress(strings.TrimSpace(to))
		}
		if err != nil {
			return r, fmt.Errorf("%q: %w", text, err)
		}
		if r.From.Is4() != r.To.Is4() {
			return r, fmt.Errorf("%q is from one family to the other", text)
		}
		if r.To.Less(r.From) {
			return r, fmt.Errorf("%q ends before it begins", text)
		}
	case strings.Contains(text, "/"):
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return r, fmt.Errorf("%q is not a network", text)
		}
		if p != p.Masked() {
			return r, fmt.Errorf("%q has host bits set: %s is meant", text, p.Masked())
		}
		if p.Addr().Is4In6() {
			return r, fmt.Errorf("%q: write an IPv4 network as such", text)
		}
		r = Range{p.Addr(), lastOf(p)}
	default:
		if r.From, err = parseAddress(text); err != nil {
			return r, err
		}
		r.To = r.From
	}
	for _, a := range []netip.Addr{r.From, r.To} {
		if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			return r, fmt.Errorf("%q: %s is an address that no Service can have", text, a)
		}
	}
	return r, nil
}

func parseAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return a, fmt.Errorf("%q is not an address, network, or range as in 192.0.2.10-192.0.2.20", text)
	}
	return a, nil
}

// lastOf is the last address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}
