// Package wire is a pod's attachment to its node: a routed pair of interfaces.
//
// There is no bridge, no broadcast domain and no ARP. The pod has its address
// with full length and sends everything to a link-local gateway that is the
// same in every pod; the node has a route to each pod's address. An attachment
// is a plain value that lists every kernel object it consists of: ADD applies
// the list, CHECK compares it with the kernel, and DEL removes it.
package wire

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// The pod's next hops. Every pod has the same, whatever its addresses: they
// never have to be unique outside of the pod's own link.
var (
	linkLocalGateway4 = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	linkLocalGateway6 = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})
)

// linkLocalBits is the length of link-local prefixes (RFC 4291, 2.5.6).
const linkLocalBits = 64

// NextHop returns the gateway of a pod's routes to destinations of the same
// family as the address: 169.254.1.1 or fe80::1.
func NextHop(address netip.Addr) netip.Addr {
	if address.Is4() {
		return linkLocalGateway4
	}
	return linkLocalGateway6
}

// Wire is the attachment of one interface of a pod.
type Wire struct {
	Host  kernel.End `json:"host"`
	Pod   kernel.End `json:"pod"`
	Alias string     `json:"alias"` // of the host interface; at most 255 bytes
	MTU   int        `json:"mtu"`   // bytes
	// Device is what both ends are; "" is veth, as in what versions wrote that had
	// nothing else.
	Device kernel.Device `json:"device,omitempty"`
	// Addresses are the pod's; each is routed to it.
	Addresses []netip.Addr `json:"addresses"`
	// Gateways are addresses that the host answers to besides the next hops:
	// those that IPAM names as gateways.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	// Routes are the pod's. One without a gateway leads to the next hop.
	Routes []Route `json:"routes,omitempty"`
	// Bandwidth is what it may carry; nil means all that it can.
	Bandwidth *Bandwidth `json:"bandwidth,omitempty"`
	// Clsact is for filters at the host interface that somebody is going to put there.
	Clsact bool `json:"clsact,omitempty"`
	// Localnet lets connections from the node's 127.0.0.1 go out to the pod.
	Localnet bool `json:"localnet,omitempty"`
	// ChangedMAC is the pod's MAC address where it is no longer the one that
	// the wire was made with.
	ChangedMAC kernel.MAC `json:"-"`
}

// Route is a route of the pod. Zero values mean the kernel's defaults.
type Route struct {
	Destination netip.Prefix `json:"dst"`
	Gateway     netip.Addr   `json:"gw,omitzero"`
	MTU         int          `json:"mtu,omitempty"`
	AdvMSS      int          `json:"advmss,omitempty"`
	Priority    int          `json:"priority,omitempty"`
	Table       int          `json:"table,omitempty"`
	Scope       *int         `json:"scope,omitempty"`
}

// Kernel is what makes, compares and removes objects: [kernel.Netlink] or
// [kernel.Recorder].
type Kernel interface {
	Make(kernel.Object) error
	Inspect(kernel.Object) error
	Remove(kernel.Object) error
}

// Shared lists what the wire needs of the node besides its own objects. Other
// wires need the same; none of it ends with a wire.
func (w Wire) Shared() []kernel.Object {
	var objects []kernel.Object
	for _, ipv6 := range w.families() {
		objects = append(objects, kernel.Forwarding{IPv6: ipv6})
		if !ipv6 {
			// fe80::1 is an address of every host interface instead: IPv6
			// does not look for link-local addresses beyond the link.
			objects = append(objects, kernel.Answered{Address: linkLocalGateway4})
		}
	}
	for _, g := range w.Gateways {
		if g != linkLocalGateway4 && g != linkLocalGateway6 {
			objects = append(objects, kernel.Answered{Address: g})
		}
	}
	return objects
}

// Objects lists all that the wire consists of, in the order in which it has to
// be made.
func (w Wire) Objects() []kernel.Object {
	var objects []kernel.Object
	add := func(o ...kernel.Object) { objects = append(objects, o...) }

	ipv6 := slices.Contains(w.families(), true)
	add(
		kernel.Pair{Host: w.Host, Pod: kernel.End{Name: w.Pod.Name, MAC: w.podMAC()}, MTU: w.MTU, Device: w.Device},
		kernel.Settings{Side: kernel.Host, Link: w.Host.Name, Alias: w.Alias, Guarded: true, Localnet: w.Localnet, WithoutIPv6: !ipv6},
		kernel.Settings{Side: kernel.Pod, Link: w.Pod.Name, Announcing: true, IPv6: ipv6},
	)
	// Before the interfaces are up: there is nothing yet that the kernel has to wait for.
	add(w.shapers()...)
	if w.Clsact {
		add(kernel.Clsact{Side: kernel.Host, Link: w.Host.Name})
	}
	add(
		kernel.Up{Side: kernel.Host, Link: w.Host.Name},
		kernel.Up{Side: kernel.Pod, Link: w.Pod.Name},
	)
	// The host routes come first: where another interface already has a
	// route to an address, that is the first to be known.
	for _, a := range w.Addresses {
		add(kernel.Route{Side: kernel.Host, Link: w.Host.Name, Destination: single(a)})
	}
	// The host knows the pod's MAC address from the start, and does not ask
	// again; but the pod may announce another one. A permanent entry would cut
	// off pods whose MAC address is changed behind flatnet, as tuning does.
	for _, ipv6 := range w.families() {
		add(kernel.Patience{Side: kernel.Host, Link: w.Host.Name, IPv6: ipv6})
	}
	if ipv6 {
		// Each end can reach the other's link-local address. The host has a
		// route to this pod's alone: one to all link-local addresses would be
		// one of a list that grows with the pods.
		own := linkLocal(w.Pod.MAC)
		add(
			kernel.Address{Side: kernel.Pod, Link: w.Pod.Name, Prefix: netip.PrefixFrom(own, linkLocalBits)},
			kernel.Address{Side: kernel.Host, Link: w.Host.Name, Prefix: single(linkLocalGateway6)},
			kernel.Route{Side: kernel.Host, Link: w.Host.Name, Destination: single(own)},
		)
	}
	// The last of the host's objects: where they are, all the others are.
	for _, a := range w.Addresses {
		add(
			kernel.Neighbour{Side: kernel.Host, Link: w.Host.Name, Address: a, MAC: w.podMAC(), Amendable: true},
			kernel.Address{Side: kernel.Pod, Link: w.Pod.Name, Prefix: single(a)},
		)
	}
	for _, hop := range w.nextHops() {
		// A change of its own MAC address makes the pod forget its entries;
		// then it asks, and the host answers.
		add(kernel.Neighbour{Side: kernel.Pod, Link: w.Pod.Name, Address: hop, MAC: w.Host.MAC, Amendable: w.ChangedMAC != (kernel.MAC{})})
	}
	for _, r := range w.Routes {
		add(kernel.Route{
			Side: kernel.Pod, Link: w.Pod.Name, Destination: r.Destination, Gateway: r.gateway(), OnLink: r.gateway().IsValid(),
			MTU: r.MTU, AdvMSS: r.AdvMSS, Metric: r.Priority, Table: r.Table, Scope: r.Scope,
		})
	}
	// What the kernel finishes in the background: IPv6 addresses are not listened
	// to yet, the end that came up first does not transmit.
	for _, a := range w.Addresses {
		if a.Is6() {
			add(kernel.Reachable{Side: kernel.Pod, Link: w.Pod.Name, Address: a})
		}
	}
	add(kernel.Running{Side: kernel.Host, Link: w.Host.Name})
	return objects
}

func (w Wire) podMAC() kernel.MAC {
	if w.ChangedMAC != (kernel.MAC{}) {
		return w.ChangedMAC
	}
	return w.Pod.MAC
}

// gateway is the route's own, or the next hop. A route of link scope is meant
// to have none.
func (r Route) gateway() netip.Addr {
	const scopeLink = 253
	if r.Gateway.IsValid() || r.Scope != nil && *r.Scope >= scopeLink && r.Destination.Addr().Is4() {
		return r.Gateway
	}
	return NextHop(r.Destination.Addr())
}

// families returns false for IPv4 and true for IPv6, for each that the pod has
// an address of.
func (w Wire) families() []bool {
	var families []bool
	for _, a := range w.Addresses {
		if !slices.Contains(families, a.Is6()) {
			families = append(families, a.Is6())
		}
	}
	return families
}

// nextHops returns every gateway that the pod can send to. All of them are the
// host, whatever their addresses.
func (w Wire) nextHops() []netip.Addr {
	var hops []netip.Addr
	for _, ipv6 := range w.families() {
		if ipv6 {
			hops = append(hops, linkLocalGateway6)
		} else {
			hops = append(hops, linkLocalGateway4)
		}
	}
	for _, r := range w.Routes {
		if hop := r.gateway(); hop.IsValid() && !slices.Contains(hops, hop) {
			hops = append(hops, hop)
		}
	}
	return hops
}

// Apply makes the wire. Where one object cannot be made, those before it are
// removed again, last first, and the error says which it was; an error that
// matches [kernel.ErrExists] means that something is there already, one that
// matches [kernel.ErrUnanswered] that the kernel took too long over the object,
// which is removed as well if it is there.
func (w Wire) Apply(k Kernel) error {
	var made []kernel.Object
	for _, object := range w.Objects() {
		err := k.Make(object)
		if err == nil {
			made = append(made, object)
			continue
		}
		errs := []error{&StepError{Object: object, Err: err}}
		if errors.Is(err, kernel.ErrUnanswered) && k.Inspect(object) == nil {
			made = append(made, object) // done after all, but for the answer
		}
		slices.Reverse(made)
		for _, undo := range made {
			if err := k.Remove(undo); err != nil {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	return nil
}

// StepError says at which object [Wire.Apply] stopped.
type StepError struct {
	Object kernel.Object
	Err    error
}

func (e *StepError) Error() string { return e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// Check compares the wire, and what it shares with others, with the kernel and
// returns all differences, joined, or nil.
func (w Wire) Check(k Kernel) error {
	var errs []error
	for _, object := range append(w.Shared(), w.Objects()...) {
		err := k.Inspect(object)
		if err == nil {
			continue
		}
		errs = append(errs, err)
		if _, isPair := object.(kernel.Pair); isPair {
			break // nothing that follows can be right
		}
	}
	return errors.Join(errs...)
}

// Remove removes the wire, complete or in parts. What ends together with an
// interface is left to the kernel, which removes it before it says that the
// interface is gone: from then on no packet takes the pod's routes.
func (w Wire) Remove(k Kernel) error {
	var errs []error
	for _, object := range slices.Backward(w.Objects()) {
		if _, link := object.Dependence(); link != "" {
			continue
		}
		if err := k.Remove(object); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// linkLocal returns the link-local address that belongs to a MAC address: the
// modified EUI-64 of RFC 4291, appendix A. Every IPv6 interface needs one, and
// this is the one that the kernel would make.
func linkLocal(mac kernel.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: mac[0] ^ 0x02, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}
