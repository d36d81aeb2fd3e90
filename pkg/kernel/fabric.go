package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Fabric is the edge to the kernel for what joins a node to the others: it
// lists, makes and removes the objects of one node, through one rtnetlink
// socket. It is not safe for concurrent use.
type Fabric struct {
	// Clsact has a new tunnel made with this qdisc ([Clsact]).
	Clsact bool

	tunnel  string // the tunnel's name: what is on it is the fabric's
	socket  *socket
	indices map[string]int
	// unusable is why nothing can be put on the tunnel, as far as that is known;
	// it is asked for once for many objects.
	unusable error
}

// NewFabric works in the caller's network namespace; tunnel is the name that
// the node's VXLAN device has or would have.
func NewFabric(tunnel string) (*Fabric, error) {
	s, err := openSocket(nil, 64<<10)
	if err != nil {
		return nil, err
	}
	// The kernel then filters dumps by table and protocol, instead of
	// ignoring what was asked for. Kernels before 4.20 ignore it; what they
	// send too much is left out here.
	_ = s.Set(unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &Fabric{tunnel: tunnel, socket: s, indices: map[string]int{}}, nil
}

// Close closes the socket.
func (f *Fabric) Close() { f.socket.Close() }

// Verb is what happens to an object.
type Verb int

const (
	Add    Verb = iota // fails with [ErrExists] where its place is taken
	Put                // takes its place, whatever is there
	Delete             // is no error where there is nothing
)

// Change is something to be done to an object of the fabric.
type Change struct {
	Verb   Verb
	Object Object
}

func (c Change) String() string {
	text := c.Object.String()
	switch c.Verb {
	case Put:
		return "replace: " + text
	case Delete:
		return "undo: " + text
	}
	return text
}

// Place names what an object of the fabric takes up in the kernel: of two
// objects with the same place, only one can be there. It panics for kinds that
// are not the fabric's.
func Place(object Object) string {
	b := make([]byte, 0, 64)
	switch o := object.(type) {
	case Route:
		b = append(b, "route "...)
		b = o.Destination.AppendTo(b)
		b = append(b, " table "...)
		b = strconv.AppendInt(b, int64(o.table()), 10)
		b = append(b, " metric "...)
		b = strconv.AppendInt(b, int64(o.Metric), 10)
	case Tunnel:
		b = append(append(b, "link "...), o.Name...)
	case Address:
		b = o.Prefix.AppendTo(append(b, "address "...))
		b = append(append(b, ' '), o.Link...)
	case Forward:
		b = append(append(b, "forward "...), o.MAC[:]...)
		b = append(append(b, ' '), o.Link...)
	case Neighbour:
		b = o.Address.AppendTo(append(b, "neighbour "...))
		b = append(append(b, ' '), o.Link...)
	case Answered:
		b = o.Address.AppendTo(append(b, "route local "...))
	case Rule:
		b = o.From.AppendTo(append(b, "rule "...))
		b = append(b, " table "...)
		b = strconv.AppendInt(b, int64(o.Table), 10)
	default:
		panic(fmt.Sprintf("kernel: %T has no place in the fabric", object))
	}
	return string(b)
}

// Apply does the changes in their order and returns an error for each, nil
// where it is done. One that fails does not keep the others from being done.
func (f *Fabric) Apply(changes []Change) []error {
	f.indices, f.unusable = map[string]int{}, nil
	results := make([]error, len(changes))
	var requests []*nl.NetlinkRequest
	var positions []int
	send := func() {
		for i, err := range f.socket.AcknowledgeAll(requests) {
			results[positions[i]] = err
		}
		requests, positions = requests[:0], positions[:0]
	}
	for i, c := range changes {
		if t, isTunnel := c.Object.(Tunnel); isTunnel {
			send()
			results[i] = f.applyTunnel(c.Verb, t)
			clear(f.indices)
			f.unusable = nil
			continue
		}
		r, err := f.message(c)
		if err != nil {
			results[i] = err
			continue
		}
		requests = append(requests, r)
		positions = append(positions, i)
		if len(requests) == mostRequests {
			send()
		}
	}
	send()
	for i, err := range results {
		if err != nil && changes[i].Verb == Delete && isGone(err) {
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", changes[i], err)
		}
		results[i] = err
	}
	return results
}

// mostRequests bounds the messages that are in memory at a time. One takes a
// kilobyte, and a large cluster's first plan has tens of thousands; they travel
// some hundred in a system call.
const mostRequests = 1000

func (f *Fabric) message(c Change) (*nl.NetlinkRequest, error) {
	_, link := c.Object.Dependence()
	if link == f.tunnel && c.Verb != Delete {
		if err := f.ownTunnel(); err != nil {
			return nil, err
		}
	}
	index := 0
	if link != "" {
		var err error
		if index, err = f.index(link); err != nil {
			return nil, err
		}
	}
	verb := c.Verb
	switch o := c.Object.(type) {
	case Route:
		var hops []int
		for _, h := range o.Hops.All() {
			link, err := f.index(h.Link)
			if err != nil {
				return nil, err
			}
			hops = append(hops, link)
		}
		return o.in(f.request(verb, unix.RTM_NEWROUTE, unix.RTM_DELROUTE), index, hops...), nil
	case Address:
		return o.in(f.request(verb, unix.RTM_NEWADDR, unix.RTM_DELADDR), index), nil
	case Neighbour:
		if verb == Add {
			verb = Put // the kernel may have made an entry of its own
		}
		return o.in(f.request(verb, unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH), index), nil
	case Forward:
		if verb == Add {
			verb = Put // a learned entry would be in the way
		}
		return o.in(f.request(verb, unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH), index), nil
	case Answered:
		lo, err := f.index("lo")
		if err != nil {
			return nil, err
		}
		return o.in(f.request(verb, unix.RTM_NEWROUTE, unix.RTM_DELROUTE), lo), nil
	case Rule:
		if verb == Put {
			verb = Add
		}
		return o.in(f.request(verb, unix.RTM_NEWRULE, unix.RTM_DELRULE)), nil
	}
	return nil, errUnknown(c.Object)
}

// request begins a message that makes or deletes something.
func (f *Fabric) request(v Verb, make, remove int) *nl.NetlinkRequest {
	switch v {
	case Delete:
		return f.socket.Request(remove, 0)
	case Put:
		return f.socket.Request(make, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	}
	return f.socket.Request(make, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

// ownTunnel makes sure that what has the tunnel's name is one, and is up: nothing
// is put on somebody else's interface, and on one that is down there is no use in
// it: it does not stay.
func (f *Fabric) ownTunnel() error {
	if _, known := f.indices[f.tunnel]; known || f.unusable != nil {
		return f.unusable
	}
	l, err := f.socket.getLink(f.tunnel)
	switch {
	case isGone(err):
		f.unusable = fmt.Errorf("%w: interface %s is missing", ErrNoTunnel, f.tunnel)
	case err != nil:
		return err
	case l.Type() != "vxlan":
		f.unusable = fmt.Errorf("%w: interface %s is of type %s", ErrNoTunnel, f.tunnel, l.Type())
	case l.Attrs().Flags&net.FlagUp == 0:
		f.unusable = fmt.Errorf("%w: interface %s is down", ErrNoTunnel, f.tunnel)
	default:
		f.indices[f.tunnel] = l.Attrs().Index
	}
	return f.unusable
}

func (f *Fabric) index(link string) (int, error) {
	if index, known := f.indices[link]; known {
		return index, nil
	}
	l, err := f.socket.link(link)
	if err != nil {
		return 0, err
	}
	f.indices[link] = l.Index
	return l.Index, nil
}

// List returns what of the fabric is in the kernel: the tunnel and what is on
// it, routes and rules with flatnet's protocol number, addresses that it answers to. Routes to pods of the
// node are the plugin's and are not among them. A dump that changed while it
// was read is read again; it fails rather than to be incomplete.
func (f *Fabric) List() ([]Object, error) {
	var objects []Object
	tunnel, index, err := f.findTunnel()
	if err != nil {
		return nil, err
	}
	if tunnel != nil {
		objects = append(objects, *tunnel)
		more, err := f.listTunnel(index)
		if err != nil {
			return nil, err
		}
		objects = append(objects, more...)
	}
	rules, err := f.listRules()
	if err != nil {
		return nil, err
	}
	routes, err := f.listRoutes()
	if err != nil {
		return nil, err
	}
	answered, err := f.listAnswered()
	if err != nil {
		return nil, err
	}
	return slices.Concat(objects, rules, routes, answered), nil
}

// listAnswered lists the addresses that the node answers to for the fabric.
func (f *Fabric) listAnswered() ([]Object, error) {
	var objects []Object
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		header := &nl.RtMsg{}
		header.Family, header.Table, header.Protocol = fam, unix.RT_TABLE_LOCAL, Protocol
		answer, err := f.socket.Dump(unix.RTM_GETROUTE, header)
		if isAbsentFamily(err) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing local routes: %w", err)
		}
		for _, message := range answer {
			if a, is := parseRoute(message).lasting(); is {
				objects = append(objects, a)
			}
		}
	}
	return objects, nil
}

// listRoutes lists the fabric's routes in both families and tables.
func (f *Fabric) listRoutes() ([]Object, error) {
	var objects []Object
	names := map[int]string{}
	for _, table := range []uint8{unix.RT_TABLE_MAIN, FabricTable} {
		for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
			header := &nl.RtMsg{}
			header.Family, header.Table, header.Protocol = fam, table, Protocol
			answer, err := f.socket.Dump(unix.RTM_GETROUTE, header)
			if isAbsentFamily(err) || errors.Is(err, unix.ENOENT) {
				continue // no such table yet
			}
			if err != nil {
				return nil, fmt.Errorf("listing routes: %w", err)
			}
			for _, message := range answer {
				route, ours, err := f.readRoute(message, names)
				if err != nil {
					return nil, fmt.Errorf("listing routes: %w", err)
				}
				if ours && route.table() == int(table) {
					objects = append(objects, route)
				}
			}
		}
	}
	return objects, nil
}

// readRoute returns the route of a message, and whether it is the fabric's.
func (f *Fabric) readRoute(message []byte, names map[int]string) (route Route, ours bool, err error) {
	found := parseRoute(message)
	if found.protocol != Protocol {
		return route, false, err
	}
	if err := f.nameLinks(found, names); err != nil {
		if isGone(err) {
			return route, false, nil // and the route with it
		}
		return route, false, err
	}
	route, ours = nodeRoute(found, func(link int) string { return names[link] })
	return route, ours, nil
}

// nameLinks notes the names of a route's interfaces; those of pods have none.
func (f *Fabric) nameLinks(found foundRoute, names map[int]string) error {
	links := []int{found.link}
	for _, h := range found.hops {
		links = append(links, h.link)
	}
	for _, link := range links {
		if _, known := names[link]; known || link == 0 {
			continue
		}
		l, err := f.socket.getLinkByIndex(link)
		if err != nil {
			return err
		}
		names[link] = ""
		if a := l.Attrs(); a.Group != Group {
			names[link] = a.Name
		}
	}
	return nil
}

// nodeRoute describes a route with flatnet's protocol number; ours is false for
// those of pods, whose interface has no name here.
func nodeRoute(found foundRoute, name func(link int) string) (route Route, ours bool) {
	if found.cloned || (found.Table != unix.RT_TABLE_MAIN && found.Table != FabricTable) {
		return route, false
	}
	link := ""
	if found.link != 0 {
		link = name(found.link)
	}
	route = Route{
		Destination: found.Destination, Metric: found.Metric, Gateway: found.Gateway,
		OnLink: found.OnLink, Source: found.Source, Link: link,
	}
	if len(found.hops) > 0 {
		if route.Hops = found.named(name); route.Hops == "" {
			return route, false
		}
		route.Gateway, route.Link = netip.Addr{}, ""
	}
	if found.Table != unix.RT_TABLE_MAIN {
		route.Table = found.Table
	}
	const defaultMetric6 = 1024
	if found.Destination.Addr().Is6() && route.Metric == defaultMetric6 {
		route.Metric = 0
	}
	switch found.kind {
	case unix.RTN_UNREACHABLE:
		route.Unreachable, route.Link = true, "" // IPv6 has it on lo
		return route, true
	case unix.RTN_UNICAST:
		return route, link != ""
	}
	// Left alone, it would be where a route of flatnet's has to be.
	route.Odd, route.Link = found.kind, ""
	return route, true
}

func (f *Fabric) listRules() ([]Object, error) {
	var objects []Object
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		header := &nl.RtMsg{}
		header.Family = fam
		answer, err := f.socket.Dump(unix.RTM_GETRULE, header)
		if isAbsentFamily(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing routing rules: %w", err)
		}
		for _, message := range answer {
			if rule, ours := parseRule(message); ours {
				objects = append(objects, rule)
			}
		}
	}
	return objects, nil
}
