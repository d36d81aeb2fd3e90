package bgp

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

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
	c.Announce.validate("announce", &f)
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
	if p.Announce != nil {
		p.Announce.validate(key+".announce", f)
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

func (a *Announce) validate(key string, f *faults) {
	for i := range a.Services {
		a.Services[i].validate(fmt.Sprintf("%s.services[%d]", key, i), f)
	}
	if a.PrefixLength.IPv4 == 0 {
		a.PrefixLength.IPv4 = 32
	}
	if a.PrefixLength.IPv6 == 0 {
		a.PrefixLength.IPv6 = 128
	}
	f.within(key+".prefixLength.ipv4", a.PrefixLength.IPv4, 8, 32)
	f.within(key+".prefixLength.ipv6", a.PrefixLength.IPv6, 16, 128)
	if a.LocalPref != nil && *a.LocalPref == 0 { // to GoBGP that is none
		f.add(key+".localPref", "0 is not within 1 to %d", uint32(math.MaxUint32))
	}
	for i, text := range a.Communities {
		if _, err := message.ParseCommunity(text); err != nil {
			f.add(fmt.Sprintf("%s.communities[%d]", key, i), "%w", err)
		}
	}
}

func (s *ServiceAddresses) validate(key string, f *faults) {
	if s.malformed != nil {
		f.add(key, "%w", s.malformed)
		return
	}
	if s.Kind != LoadBalancer && s.Kind != External && s.Kind != Cluster {
		f.add(key, "%q is not %s, %s or %s", s.Kind, LoadBalancer, External, Cluster)
	}
	var err error
	if s.selector, err = labels.Parse(s.Selector); err != nil {
		f.add(key+".selector", "%q is not a label selector such as expose=yes: %w", s.Selector, err)
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
