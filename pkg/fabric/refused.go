package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Problems returns what the kernel refused at the last sync, seen from the node
// named self: what belongs to the way to a peer concerns that peer.
func (e *Engine) Problems(self string) []problem.Problem {
	failures := e.Failures()
	if len(failures) == 0 {
		return nil
	}
	peers := e.plan.owners()
	all := make([]problem.Problem, 0, len(failures))
	for _, f := range failures {
		node, is := peers[kernel.Place(f.Change.Object)]
		if !is {
			node = self
		}
		all = append(all, f.problem(node))
	}
	return all
}

// owners are the peers whose ways the entries belong to, by place.
func (p *Plan) owners() map[string]string {
	all := map[string]string{}
	for _, peer := range p.Peers {
		for _, e := range peer.Entries {
			all[e.Place] = peer.Name
		}
	}
	return all
}

// problem says what was refused, and what to do.
func (f Failure) problem(node string) problem.Problem {
	if t, is := f.Change.Object.(kernel.Tunnel); is {
		return f.tunnelProblem(node, t)
	}
	facts := problem.Facts{Node: node, Object: f.Change.String(), Reason: f.reason(), Needs: f.needs(), Breaks: f.breaks()}
	if errors.Is(f.Err, kernel.ErrExists) {
		facts.Reason = "somebody else's is there already: " + facts.Reason
		facts.Advice = inPlaceOf(f.Change.Object)
		return problem.RouteTaken.Of(facts)
	}
	facts.Advice = f.advice()
	return problem.FabricObject.Of(facts)
}

// reason is why the kernel refused a change, without the change, which the object
// names already.
func (f Failure) reason() string {
	return strings.Replace(f.Err.Error(), f.Change.String()+": ", "", 1)
}

// needs are what an object relies on that might be refused as well.
func (f Failure) needs() (all []problem.Thing) {
	if f.Change.Verb == kernel.Delete {
		return nil
	}
	if _, link := f.Change.Object.Dependence(); link != "" {
		all = append(all, problem.Link(link))
		if f.ipv6() && !f.ipv6Off() {
			all = append(all, problem.IPv6On(link))
		}
	}
	if r, is := f.Change.Object.(kernel.Route); is && r.Source.IsValid() {
		all = append(all, problem.Address(r.Source))
	}
	return all
}

// breaks are what relies on an object.
func (f Failure) breaks() []problem.Thing {
	a, is := f.Change.Object.(kernel.Address)
	if !is || f.Change.Verb == kernel.Delete {
		return nil
	}
	all := []problem.Thing{problem.Address(a.Prefix.Addr())}
	if f.ipv6Off() {
		all = append(all, problem.IPv6On(a.Link))
	}
	return all
}

// ipv6Off reports whether an address was refused because its interface has no
// IPv6.
func (f Failure) ipv6Off() bool {
	_, isAddress := f.Change.Object.(kernel.Address)
	return isAddress && f.ipv6() && errors.Is(f.Err, unix.EACCES)
}

// tunnelProblem says what keeps the VXLAN device from being as it is wanted.
func (f Failure) tunnelProblem(node string, t kernel.Tunnel) problem.Problem {
	facts := problem.Facts{Node: node, Object: f.Change.String(), Reason: f.reason(), Breaks: []problem.Thing{problem.Link(t.Name), problem.Overlay}}
	var o *kernel.Obstacle
	if !errors.As(f.Err, &o) {
		facts.Advice = f.advice()
		return problem.FabricObject.Of(facts)
	}
	const unwanted = "if it is no longer wanted, remove it: `ip link del %s`; "
	switch o.Sort {
	case kernel.ErrNameTaken:
		facts.Object = "interface " + o.Link
		facts.Reason = fmt.Sprintf("is of type %s and not flatnet's, whose VXLAN device is to have this name", o.Type)
		facts.Advice = fmt.Sprintf(unwanted+"or give flatnet's another name: --vxlan-device", o.Link)
		return problem.VXLANName.Of(facts)
	case kernel.ErrNumberTaken:
		facts.Advice = fmt.Sprintf("give flatnet another number, the same on all nodes: --vxlan-id, which is %d; another --vxlan-port does as well", t.VNI)
		if o.Link != "" {
			facts.Object = "VXLAN device " + o.Link
			facts.Reason = fmt.Sprintf("has VNI %d at UDP port %d, which %s is to have: a node has room for one", t.VNI, t.Port, t.Name)
			facts.Advice = fmt.Sprintf(unwanted, o.Link) + "or " + facts.Advice
			return problem.VXLANNumber.Of(facts)
		}
		facts.Object = fmt.Sprintf("VNI %d at UDP port %d", t.VNI, t.Port)
		facts.Reason = fmt.Sprintf("belongs to a VXLAN device that is not in this network namespace, so that %s cannot be made: "+
			"one keeps both where it was made, as those of docker's overlay networks do", t.Name)
		facts.Advice = "look for it in the others (`lsns -t net`, then `nsenter --net=… ip -d link show type vxlan`), and remove it if it is no longer wanted; or " + facts.Advice
		return problem.VXLANNumber.Of(facts)
	}
	facts.Advice = fmt.Sprintf("give flatnet another port, the same on all nodes: --vxlan-port, which is %d", t.Port)
	if o.Link != "" {
		facts.Object = "VXLAN device " + o.Link
		facts.Reason = fmt.Sprintf("has UDP port %d in another mode than %s, which cannot be brought up: devices share a port only in the same mode, and an external one shares it with no other", t.Port, t.Name)
		facts.Advice = fmt.Sprintf(unwanted, o.Link) + "or " + facts.Advice
		return problem.VXLANPort.Of(facts)
	}
	facts.Object = fmt.Sprintf("UDP port %d", t.Port)
	facts.Reason = fmt.Sprintf("is in use by another program, so that %s cannot be brought up", t.Name)
	facts.Advice = fmt.Sprintf("`ss -lunp 'sport = :%d'` says which (none: a VXLAN device that was made here and moved to another network namespace); end it, or %s", t.Port, facts.Advice)
	return problem.VXLANPort.Of(facts)
}

// inPlaceOf says how to find and remove what is where an object has to be.
func inPlaceOf(object kernel.Object) string {
	switch o := object.(type) {
	case kernel.Route:
		command, table, metric := "ip", "", ""
		if o.Destination.Addr().Is6() {
			command = "ip -6"
		}
		if o.Table != 0 {
			table = fmt.Sprintf(" table %d", o.Table)
		}
		if o.Metric != 0 {
			metric = fmt.Sprintf(" metric %d", o.Metric)
		}
		return fmt.Sprintf("`%s route show %s%s` shows whose it is; if it is not wanted, remove it: `%s route del %s%s%s`", command, o.Destination, table, command, o.Destination, table, metric)
	case kernel.Rule:
		command := "ip"
		if o.From.Addr().Is6() {
			command = "ip -6"
		}
		return fmt.Sprintf("`%s rule show from %s` shows it; if it is not wanted, remove it: `%s rule del from %s priority %d`", command, o.From, command, o.From, o.Priority)
	}
	return ""
}

// advice goes by the kernel's error; it is "" where that says nothing of what to
// do.
func (f Failure) advice() string {
	_, link := f.Change.Object.Dependence()
	if _, is := f.Change.Object.(kernel.Answered); is {
		link = "lo"
	}
	switch {
	case errors.Is(f.Err, unix.EPERM):
		return "run flatnetd as root on the node, with CAP_NET_ADMIN"
	case errors.Is(f.Err, unix.EACCES) && f.ipv6():
		return fmt.Sprintf("IPv6 is switched off on interface %s: `sysctl -w net.ipv6.conf.%s.disable_ipv6=0`, and find out what sets net.ipv6.conf.default.disable_ipv6; "+
			"or use no IPv6 podCIDRs", link, strings.ReplaceAll(link, ".", "/"))
	case link != "" && (errors.Is(f.Err, unix.ENETDOWN) || errors.Is(f.Err, unix.ENODEV) || errors.Is(f.Err, unix.ENETUNREACH) || errors.Is(f.Err, kernel.ErrNoTunnel)):
		return fmt.Sprintf("look at `ip addr show dev %s`: the interface is gone or down, or has lost its address; it is tried again by itself", link)
	}
	return ""
}

// ipv6 reports whether the object is one of IPv6.
func (f Failure) ipv6() bool {
	var of netip.Addr
	switch o := f.Change.Object.(type) {
	case kernel.Address:
		of = o.Prefix.Addr()
	case kernel.Route:
		of = o.Destination.Addr()
	case kernel.Neighbour:
		of = o.Address
	case kernel.Answered:
		of = o.Address
	}
	return of.Is6()
}
