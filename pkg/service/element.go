package service

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// setID identifies a set or map of a table.
type setID uint8

const (
	setServices     setID = iota // front : verdict
	setInside                    // front : verdict, for policy Local and sources inside
	setOutside                   // front : verdict, for policy Local and sources outside
	setFiltered                  // front : verdict, for sources that are allowed
	setExternal                  // front that is not a ClusterIP
	setIDs                       // front : mark of connections with affinity
	setRemember                  // mark : verdict
	setClusterIPs                // address
	setHairpin                   // address . the same address
	setOwn                       // prefix
	setServiceCIDRs              // prefix
	setEndpointsTCP              // address . port . index : address . port
	setEndpointsUDP
	setEndpointsSCTP
	setSourcesTCP // address . port . prefix
	setSourcesUDP
	setSourcesSCTP
	setAffinityTCP // address . mark : address . port; the kernel fills it
	setAffinityUDP
	setAffinitySCTP
	setStamps // number of a transaction; see [Watcher]
	numberOfSets
)

// shape is what the elements of a set look like.
type shape uint8

const (
	shapeFront    shape = iota // key: a front
	shapeSource                // key: a front without protocol, and a prefix
	shapeMark                  // key: a mark; the address says the family
	shapeAddress               // key: an address
	shapeTwice                 // key: an address, twice
	shapePrefix                // key: a prefix
	shapeEndpoint              // key: a front without protocol, and an index
	shapeAffinity              // key: an address and a mark
)

// schema is how a set is declared. In texts $addr is the family's address type
// and $ip its header.
type schema struct {
	name     string
	shape    shape
	kind     string // type or typeof
	key      string
	value    string        // empty for a set
	flags    string        // empty for none
	size     uint64        // 0: without limit
	timeout  time.Duration // of elements that do not have their own; 0: for ever
	protocol Protocol
}

// affinitySize is how many pairs of a client and a Service are remembered at
// most, for each family and protocol. Beyond it new clients are not remembered.
const affinitySize = 1 << 20

// stampTimeout is more than enough for a stamp to be seen by who waits for it.
const stampTimeout = time.Second

const typeFront = "$addr . inet_proto . inet_service"

func schemas() [numberOfSets]schema {
	s := [numberOfSets]schema{
		setServices:     {name: "services", shape: shapeFront, kind: "type", key: typeFront, value: "verdict"},
		setInside:       {name: "inside", shape: shapeFront, kind: "type", key: typeFront, value: "verdict"},
		setOutside:      {name: "outside", shape: shapeFront, kind: "type", key: typeFront, value: "verdict"},
		setFiltered:     {name: "filtered", shape: shapeFront, kind: "type", key: typeFront, value: "verdict"},
		setExternal:     {name: "external", shape: shapeFront, kind: "type", key: typeFront},
		setIDs:          {name: "ids", shape: shapeFront, kind: "type", key: typeFront, value: "mark"},
		setRemember:     {name: "remember", shape: shapeMark, kind: "type", key: "mark", value: "verdict"},
		setClusterIPs:   {name: "cluster-ips", shape: shapeAddress, kind: "type", key: "$addr"},
		setHairpin:      {name: "hairpin", shape: shapeTwice, kind: "type", key: "$addr . $addr"},
		setOwn:          {name: "own", shape: shapePrefix, kind: "type", key: "$addr", flags: "interval"},
		setServiceCIDRs: {name: "service-cidrs", shape: shapePrefix, kind: "type", key: "$addr", flags: "interval"},
		setStamps:       {name: "stamps", shape: shapeMark, kind: "type", key: "mark", flags: "timeout", timeout: stampTimeout},
	}
	for i, p := range protocols {
		s[setEndpointsTCP+setID(i)] = schema{
			name: "endpoints-" + p.String(), shape: shapeEndpoint, protocol: p, kind: "typeof",
			key: "$ip daddr . " + p.String() + " dport . numgen random mod 65536", value: "$ip daddr . " + p.String() + " dport",
		}
		s[setSourcesTCP+setID(i)] = schema{
			name: "sources-" + p.String(), shape: shapeSource, protocol: p, kind: "type",
			key: "$addr . inet_service . $addr", flags: "interval",
		}
		s[setAffinityTCP+setID(i)] = schema{
			name: "affinity-" + p.String(), shape: shapeAffinity, protocol: p, kind: "typeof",
			key: "$ip saddr . ct mark", value: "$ip daddr . " + p.String() + " dport", flags: "dynamic,timeout", size: affinitySize,
		}
	}
	return s
}

// sets are the declarations of all sets. Nobody writes to them.
var sets = schemas()

// schema returns the set's declaration.
func (s setID) schema() *schema { return &sets[s] }

// dynamic reports whether elements come and go by themselves.
func (s setID) dynamic() bool { return s >= setAffinityTCP }

// ofEndpoints reports whether it is one of the maps of endpoints.
func (s setID) ofEndpoints() bool { return s >= setEndpointsTCP && s <= setEndpointsSCTP }

// byProtocol returns the set of a protocol, of those that follow the one of TCP.
func (s setID) byProtocol(p Protocol) setID {
	switch p {
	case UDP:
		return s + 1
	case SCTP:
		return s + 2
	}
	return s
}

func (s *schema) isMap() bool { return s.value != "" }

// declared returns a type of the schema in a family's words.
func (f family) declared(text string) string {
	return strings.ReplaceAll(f.in(text), "$addr", [...]string{"ipv4_addr", "ipv6_addr"}[f])
}

// key is the key of an element of any set; what its shape does not have is zero.
type key struct {
	front  Front        // or its address only
	index  uint32       // or a mark
	prefix netip.Prefix // of a source, or all there is
}

// value is the value of an element of any map.
type value struct {
	verdict string
	at      netip.AddrPort
	mark    uint32
}

// element is an element of a set or map.
type element struct {
	set     setID
	key     key
	value   value
	comment string // for people
}

// text returns the fields of the key as nft reads them.
func (s shape) text(k key) []string {
	switch s {
	case shapeFront:
		return k.front.fields()
	case shapeSource:
		return []string{k.front.Address.String(), strconv.Itoa(int(k.front.Port)), prefixText(k.prefix)}
	case shapeMark:
		return []string{markText(k.index)}
	case shapeAddress:
		return []string{k.front.Address.String()}
	case shapeTwice:
		return []string{k.front.Address.String(), k.front.Address.String()}
	case shapePrefix:
		return []string{prefixText(k.prefix)}
	case shapeEndpoint:
		return []string{k.front.Address.String(), strconv.Itoa(int(k.front.Port)), strconv.FormatUint(uint64(k.index), 10)}
	}
	return []string{k.front.Address.String(), markText(k.index)}
}

func (f Front) fields() []string {
	return []string{f.Address.String(), f.Protocol.String(), strconv.Itoa(int(f.Port))}
}

// text returns the fields of the value as nft reads them; none for a set.
func (v value) text() []string {
	switch {
	case v.verdict != "":
		return []string{v.verdict}
	case v.at.IsValid():
		return []string{v.at.Addr().String(), strconv.Itoa(int(v.at.Port()))}
	case v.mark != 0:
		return []string{markText(v.mark)}
	}
	return nil
}

func markText(mark uint32) string { return fmt.Sprintf("0x%08x", mark) }

// prefixText is a prefix, or the address where it is only one.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func (e element) String() string {
	text := e.set.schema().name + " { " + strings.Join(e.set.schema().shape.text(e.key), " . ")
	if v := e.value.text(); v != nil {
		text += " : " + strings.Join(v, " . ")
	}
	return text + " }"
}

// commentLength is the most that nft takes.
const commentLength = 127

// comment is what the list of rules says about a front.
func (t *Target) comment() string {
	name := t.Name.String()
	return name[:min(len(name), commentLength)]
}

// elements calls yield for every element that leads from a front to its target,
// and that no other front needs.
func (t *Target) elements(f Front, yield func(element)) {
	t.verdicts(f, yield)
	var none *Target
	none.differ(t, f, func(_, after element) { yield(after) })
}

// verdicts calls yield for those of the elements that are not of an endpoint.
func (t *Target) verdicts(f Front, yield func(element)) {
	at := key{front: f}
	yield(element{set: setServices, key: at, value: value{verdict: t.dispatch()}, comment: t.comment()})
	if len(t.sources) > 0 {
		yield(element{set: setFiltered, key: at, value: value{verdict: t.admitted()}})
		for _, p := range t.sources {
			yield(element{set: setSourcesTCP.byProtocol(f.Protocol), key: key{front: f, prefix: p}})
		}
	}
	if t.split() {
		yield(element{set: setInside, key: at, value: value{verdict: t.inside()}})
		yield(element{set: setOutside, key: at, value: value{verdict: t.outside()}})
	}
	if t.Kind != ClusterIP {
		yield(element{set: setExternal, key: at})
	}
	if t.affinity > 0 {
		yield(element{set: setIDs, key: at, value: value{mark: t.id}})
	}
}

// differ calls yield for every element of an endpoint that is another one where the
// front has another target; either may be nil. One that is not there has no endpoint.
func (t *Target) differ(o *Target, f Front, yield func(before, after element)) {
	list := func(offset uint32) func(int, netip.AddrPort, netip.AddrPort) {
		one := element{set: setEndpointsTCP.byProtocol(f.Protocol), key: key{front: f}}
		return func(number int, before, after netip.AddrPort) {
			one.key.index = offset + uint32(number)
			was, is := one, one
			was.value.at, is.value.at = before, after
			yield(was, is)
		}
	}
	t.clusterUsed().differ(o.clusterUsed(), list(0))
	t.localUsed().differ(o.localUsed(), list(localOffset))
}

// hairpin is the element for a pod of this node that may reach itself.
func hairpin(a netip.Addr) element {
	return element{set: setHairpin, key: key{front: Front{Address: a}}}
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
		yield(element{set: setClusterIPs, key: key{front: Front{Address: f.Address}}})
	}
	if t.affinity > 0 {
		yield(element{set: setRemember, key: key{index: t.id, front: Front{Address: familyOf(f.Address).zero()}}, value: value{verdict: "jump " + t.remember().name()}})
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
