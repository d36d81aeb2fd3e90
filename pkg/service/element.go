package service

import (
	"net/netip"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// setID identifies a set or map of a table.
type setID uint8

const (
	setServices   setID = iota // front : verdict
	setInside                  // front : verdict, for policy Local and sources inside
	setOutside                 // front : verdict, for policy Local and sources outside
	setFiltered                // front : verdict, for sources that are allowed
	setExternal                // front that is not a ClusterIP
	setIDs                     // front : mark of connections with affinity
	setSourcesTCP              // address . port . prefix
	setSourcesUDP
	setSourcesSCTP
	setEndpointsTCP // address . port . index : address . port
	setEndpointsUDP
	setEndpointsSCTP
	setRemember     // mark : verdict
	setClusterIPs   // address
	setHairpin      // address . the same address
	setOwn          // prefix
	setServiceCIDRs // prefix
	setAffinityTCP  // address . mark : address . port; the kernel fills it
	setAffinityUDP
	setAffinitySCTP
	numberOfSets
)

// affinitySize is how many pairs of a client and a Service are remembered at
// most, for each family and protocol. Beyond it new clients are not remembered.
const affinitySize = 1 << 20

// declared are the declarations of all sets, in the words of each family. Nobody
// writes to them.
var declared = declarations()

func declarations() (all [len(families)][numberOfSets]nft.Set) {
	const front = "type $addr . inet_proto . inet_service"
	for _, f := range families {
		sets := &all[f]
		*sets = [numberOfSets]nft.Set{
			setServices:     {Name: "services", Type: front + " : verdict"},
			setInside:       {Name: "inside", Type: front + " : verdict"},
			setOutside:      {Name: "outside", Type: front + " : verdict"},
			setFiltered:     {Name: "filtered", Type: front + " : verdict"},
			setExternal:     {Name: "external", Type: front},
			setIDs:          {Name: "ids", Type: front + " : mark"},
			setRemember:     {Name: "remember", Type: "type mark : verdict"},
			setClusterIPs:   {Name: "cluster-ips", Type: "type $addr"},
			setHairpin:      {Name: "hairpin", Type: "type $addr . $addr"},
			setOwn:          {Name: "own", Type: "type $addr", Flags: "interval"},
			setServiceCIDRs: {Name: "service-cidrs", Type: "type $addr", Flags: "interval"},
		}
		for i, p := range protocols {
			at := " " + p.String() + " dport"
			sets[setSourcesTCP+setID(i)] = nft.Set{Name: "sources-" + p.String(), Type: "type $addr . inet_service . $addr", Flags: "interval"}
			sets[setEndpointsTCP+setID(i)] = nft.Set{Name: "endpoints-" + p.String(), Type: "typeof $ip daddr ." + at + " . numgen random mod 65536 : $ip daddr ." + at}
			sets[setAffinityTCP+setID(i)] = nft.Set{
				Name: "affinity-" + p.String(), Type: "typeof $ip saddr . ct mark : $ip daddr ." + at, Flags: "dynamic,timeout", Size: affinitySize,
			}
		}
		for i := range sets {
			sets[i].Type = strings.ReplaceAll(f.in(sets[i].Type), "$addr", [...]string{"ipv4_addr", "ipv6_addr"}[f])
		}
	}
	return all
}

// declared returns the set's declaration in a family's table.
func (id setID) declared(f family) nft.Set { return declared[f][id] }

// ofEndpoints reports whether it is one of the maps of endpoints.
func (id setID) ofEndpoints() bool { return id >= setEndpointsTCP && id <= setEndpointsSCTP }

// ofSources reports whether it is one of the sets of allowed sources.
func (id setID) ofSources() bool { return id >= setSourcesTCP && id <= setSourcesSCTP }

// byProtocol returns the set of a protocol, of those that follow the one of TCP.
func (id setID) byProtocol(p Protocol) setID {
	switch p {
	case UDP:
		return id + 1
	case SCTP:
		return id + 2
	}
	return id
}

// protocol returns the protocol of one of endpoints or sources.
func (id setID) protocol() Protocol {
	first := setSourcesTCP
	if id.ofEndpoints() {
		first = setEndpointsTCP
	}
	return protocols[id-first]
}

// holds reports whether a front may have elements in the set.
func (id setID) holds(f Front) bool {
	return !id.ofEndpoints() && !id.ofSources() || id.protocol() == f.Protocol
}

// key is the front's in the maps of fronts.
func (f Front) key() nft.Key {
	return make(nft.Key, 0, 24).Address(f.Address).Protocol(uint8(f.Protocol)).Port(f.Port)
}

// place is the front's in the sets of its protocol; something follows.
func (f Front) place() nft.Key { return make(nft.Key, 0, 36).Address(f.Address).Port(f.Port) }

func (f family) bytes() int { return [...]int{4, 16}[f] }

// commentLength is the most that nft takes.
const commentLength = 127

// comment is what the list of rules says about a front.
func (t *Target) comment() string {
	name := t.Name.String()
	return name[:min(len(name), commentLength)]
}

// has returns the element of a front in one of the maps of fronts.
func (t *Target) has(id setID, f Front) (e nft.Element, is bool) {
	switch id {
	case setServices:
		e.Value, e.Comment, is = t.dispatch(), t.comment(), true
	case setInside:
		e.Value, is = t.inside(), t.split()
	case setOutside:
		e.Value, is = t.outside(), t.split()
	case setFiltered:
		e.Value, is = t.admitted(), len(t.sources) > 0
	case setExternal:
		is = t.Kind != ClusterIP
	case setIDs:
		e.Value, is = string(nft.Key(nil).Number(t.id)), t.affinity > 0
	}
	if is {
		e.Key = string(f.key())
	}
	return e, is
}

// source is the element for a prefix of those that may use a front.
func (f Front) source(p netip.Prefix) nft.Element {
	r := nft.RangeOf(p)
	return nft.Element{Key: string(f.place().Address(r.First)), End: string(f.place().Address(r.Last))}
}

// endpoint is the element for one of a front's endpoints, by its index.
func (f Front) endpoint(index uint32, at netip.AddrPort) nft.Element {
	return nft.Element{Key: string(f.place().Number(index)), Value: string(make(nft.Key, 0, 20).Address(at.Addr()).Port(at.Port()))}
}

// count returns how many elements a front has in one of the sets that it may have some in.
func (t *Target) count(id setID, f Front) int {
	switch {
	case id.ofEndpoints():
		return t.clusterUsed().size() + t.localUsed().size()
	case id.ofSources():
		return len(t.sources)
	}
	if _, is := t.has(id, f); is {
		return 1
	}
	return 0
}

// in calls yield for the elements that a front has in one of these sets, until that
// says false.
func (t *Target) in(id setID, f Front, yield func(nft.Element) bool) bool {
	switch {
	case id.ofEndpoints():
		for _, offset := range []uint32{0, localOffset} {
			list, _ := t.numbered(offset)
			for number := range list.size() {
				if !yield(f.endpoint(offset+uint32(number), list.at(uint16(number)))) {
					return false
				}
			}
		}
	case id.ofSources():
		for _, p := range t.sources {
			if !yield(f.source(p)) {
				return false
			}
		}
	default:
		if e, is := t.has(id, f); is {
			return yield(e)
		}
	}
	return true
}

// differ calls yield for every element that is another one where a front has another
// target, as it was and as it is; either target may be nil. It costs no more than that
// for endpoints that are the same.
func (t *Target) differ(o *Target, f Front, yield func(id setID, before, after nft.Element)) {
	for id := setServices; id < setEndpointsTCP; id++ {
		if !id.holds(f) {
			continue
		}
		have := map[string]nft.Element{}
		if t != nil {
			t.in(id, f, func(e nft.Element) bool { have[e.Key] = e; return true })
		}
		if o != nil {
			o.in(id, f, func(e nft.Element) bool {
				if have[e.Key] != e {
					yield(id, have[e.Key], e)
				}
				delete(have, e.Key)
				return true
			})
		}
		for _, e := range have {
			yield(id, e, nft.Element{})
		}
	}
	list := func(offset uint32) func(int, netip.AddrPort, netip.AddrPort) {
		element := func(number int, at netip.AddrPort) (e nft.Element) {
			if at.IsValid() {
				e = f.endpoint(offset+uint32(number), at)
			}
			return e
		}
		return func(number int, before, after netip.AddrPort) {
			yield(setEndpointsTCP.byProtocol(f.Protocol), element(number, before), element(number, after))
		}
	}
	t.clusterUsed().differ(o.clusterUsed(), list(0))
	t.localUsed().differ(o.localUsed(), list(localOffset))
}

// element is one that several fronts may need, in a family's table.
type element struct {
	family family
	set    setID
	nft.Element
}

// hairpin is the element for a pod of this node that may reach itself.
func hairpin(a netip.Addr) element {
	return element{familyOf(a), setHairpin, nft.Element{Key: string(nft.Key(nil).Address(a).Address(a))}}
}

// owned returns the pods of this node that the target leads to.
func (t *Target) owned() []netip.Addr {
	if t == nil {
		return nil
	}
	return t.own
}

// shared calls yield for every element that the target needs and that others may
// need too, but for those of [hairpin].
func (t *Target) shared(f Front, yield func(element)) {
	if t.Kind == ClusterIP {
		yield(element{familyOf(f.Address), setClusterIPs, nft.Element{Key: string(nft.Key(nil).Address(f.Address))}})
	}
	if t.affinity > 0 {
		yield(element{familyOf(f.Address), setRemember, nft.Element{Key: string(nft.Key(nil).Number(t.id)), Value: "jump " + t.remember().name()}})
	}
}

// remember is the chain that notes a client's endpoint.
func (t *Target) remember() chainRef {
	return chainRef{kind: rememberChain, n: int(t.affinity.Seconds())}
}

// chains calls yield for every chain that the target's elements go to.
func (t *Target) chains(yield func(chainRef)) {
	use := func(c chainRef) {
		yield(c)
		for _, n := range c.needs() {
			yield(n)
		}
	}
	if t.usesCluster() {
		use(t.balance(false))
	}
	if t.usesLocal() {
		use(t.balance(true))
	}
	if t.affinity > 0 {
		use(t.remember())
	}
}
