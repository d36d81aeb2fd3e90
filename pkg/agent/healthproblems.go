package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/health"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

const (
	// settling is how long a node may take to answer for the first time, from when it
	// came into the cluster, or into the list where that does not say.
	settling, settlingUnknown = 2 * time.Minute, 30 * time.Second
	// several lost peers of one sort of way are told as one.
	several = 5
)

// probed is a way to which packets are lost, with what is known of it.
type probed struct {
	node node.Node
	way  fabric.Way
	health.Finding
}

// judge returns the problems that probes show, and notes when there may be more
// without anything new being known.
func (f *probing) judge(now time.Time) (all []problem.Problem) {
	var ways []probed
	f.settled = time.Time{}
	for _, found := range f.unwell() {
		if listed, _ := f.Listed(found.Peer); listed.Away != "" {
			continue
		}
		p, is := f.find(found)
		if !is {
			continue
		}
		if at := p.settles(); now.Before(at) {
			if f.settled.IsZero() || at.Before(f.settled) {
				f.settled = at
			}
			continue
		}
		ways = append(ways, p)
	}
	all = append(all, f.judgeSorts(ways)...)
	for _, w := range ways {
		all = append(all, f.problemOf(w))
	}
	return all
}

// find returns the way that was found to lose packets, if it is still planned.
func (f *probing) find(found health.Finding) (p probed, is bool) {
	n, _ := f.Find(found.Peer)
	at, is := slices.BinarySearchFunc(f.Plan.Peers, found.Peer, func(p *fabric.Peer, name string) int { return strings.Compare(p.Name, name) })
	if !is {
		return p, false
	}
	ways := f.Plan.Peers[at].Ways
	i := slices.IndexFunc(ways, func(w fabric.Way) bool { return w.PodCIDR.Contains(found.Address) && w.Mode != "" })
	if i < 0 {
		return p, false
	}
	return probed{n, ways[i], found}, true
}

// settles is until when the way is none to be judged; zero for none.
func (p probed) settles() time.Time {
	switch {
	case p.Answered:
		return time.Time{}
	case p.node.Created.IsZero():
		return p.Known.Add(settlingUnknown)
	}
	return p.node.Created.Add(settling)
}

// sortOf names what a way to a node has in common with others.
func sortOf(n node.Node, w fabric.Way) string {
	switch {
	case w.Mode == fabric.VXLAN:
		return "nodes reached by vxlan"
	case router(n, w):
		return "nodes behind router " + w.Via.String() + moreHops(w)
	}
	return "nodes on link of interface " + w.Link
}

// router reports whether the next hop of a way is not the node itself.
func router(n node.Node, w fabric.Way) bool {
	return (w.Mode == fabric.Direct || w.Mode == fabric.BGP) && !slices.Contains(n.Addresses, w.Via)
}

// shared is what several may have in common with a peer: a sort of way, and what is lost.
func (p probed) shared() problem.Thing {
	switch p.State {
	case health.Lost:
		return problem.Thing("probes of " + p.Sort)
	case health.Lossy:
		return problem.Thing("some probes of " + p.Sort)
	}
	return problem.Thing("large probes of " + p.Sort)
}

// judgeSorts tells of many peers to which the same is lost as of one problem, which
// their own follow from.
func (f *probing) judgeSorts(ways []probed) (all []problem.Problem) {
	peers := map[problem.Thing]map[string]bool{}
	for _, w := range ways {
		if peers[w.shared()] == nil {
			peers[w.shared()] = map[string]bool{}
		}
		peers[w.shared()][w.Peer] = true
	}
	for _, w := range ways { // in their order, each sort once
		n := len(peers[w.shared()])
		delete(peers, w.shared())
		if n < 2 || n < several && (w.State != health.Lost || f.reached()[w.Sort]) {
			continue
		}
		facts := problem.Facts{Node: f.config.NodeName, Object: w.Sort, Breaks: []problem.Thing{w.shared()}}
		switch w.State {
		case health.Lost:
			facts.Reason = "probes of several of them are lost, most likely for one reason"
		case health.Lossy:
			facts.Reason = "some of the probes of several of them are lost, most likely for one reason"
		default:
			facts.Reason, facts.Advice = "large packets to several of them are lost, most likely for one reason", f.adviceMTU(w)
		}
		all = append(all, problem.PeersLost.Of(facts))
	}
	return all
}

// problemOf is what is wrong with one way.
func (f *probing) problemOf(p probed) problem.Problem {
	// What is lost of the other family, by the same way, has the same cause.
	same := p.shared() + problem.Thing(": "+p.Peer)
	facts := problem.Facts{
		Node: p.node.Name, Object: "podCIDR " + p.way.PodCIDR.String(),
		Breaks: []problem.Thing{same}, Needs: []problem.Thing{p.shared(), same},
	}
	switch {
	case p.State == health.Lost:
		facts.Reason = fmt.Sprintf("probes from node %s are lost, by %s: packets do not get there, or nothing comes back", f.config.NodeName, wayText(p.way))
		facts.Advice = f.adviceLost(p)
		return problem.PeerLost.Of(facts)
	case p.State == health.Lossy:
		facts.Reason = fmt.Sprintf("some of the probes from node %s are lost, by %s", f.config.NodeName, wayText(p.way))
		return problem.PeerLossy.Of(facts)
	}
	facts.Reason = fmt.Sprintf("packets of %d bytes from node %s are lost, by %s, and smaller ones are not; nobody says that they are too large", p.Size, f.config.NodeName, wayText(p.way))
	facts.Advice = f.adviceMTU(p)
	return problem.PeerMTU.Of(facts)
}

// wayText is a way for people: "vxlan to 172.30.1.3", "direct via 172.30.0.254 dev eth0",
// "bgp via 172.30.0.251 and 1 more dev eth0".
func wayText(w fabric.Way) string {
	if w.Mode == fabric.VXLAN {
		return fmt.Sprintf("vxlan to %s", w.Via)
	}
	return fmt.Sprintf("%s via %s%s dev %s", w.Mode, w.Via, moreHops(w), w.Link)
}

func (f *probing) adviceLost(p probed) string {
	text := ""
	switch {
	case p.way.Mode == fabric.VXLAN:
		text = fmt.Sprintf("see whether node %s runs (`ping %s`); if it does, let UDP port %d pass between %s and it, both ways: firewalls of both nodes, security groups, what lies between; `tcpdump -ni any udp port %[3]d` there shows what arrives",
			p.node.Name, p.way.Via, f.config.Fabric.Port, f.outer())
	case p.way.Mode == fabric.BGP:
		text = fmt.Sprintf("routers that tell of %s (`flatnetd status bgp`) have to let packets with pods' addresses pass, on all ways to it; see whether node %s runs; or use --fabric vxlan",
			p.way.PodCIDR, p.node.Name)
	case router(p.node, p.way):
		text = fmt.Sprintf("router %s has to have a route to %s and let packets with pods' addresses pass (in clouds: routes of the network, no source/destination check); see whether node %s runs; or use --fabric auto or vxlan",
			p.way.Via, p.way.PodCIDR, p.node.Name)
	default:
		text = fmt.Sprintf("see whether node %s runs (`ping %s`); if it does, the network between drops packets with pods' addresses (in clouds: source/destination check), or the node does (rp_filter, firewall); or use --fabric vxlan",
			p.node.Name, p.way.Via)
	}
	if p.Complaint != "" {
		text = p.Complaint + "; " + text
	}
	return text + fmt.Sprintf("; node %s has to answer echo requests to %s", p.node.Name, fabric.Answering(p.way.PodCIDR))
}

// outer is this node's address that the overlay uses.
func (f *probing) outer() netip.Addr {
	for _, e := range f.Plan.Shared {
		if t, is := e.Object.(kernel.Tunnel); is {
			return t.From
		}
	}
	return netip.Addr{}
}

func (f *probing) adviceMTU(p probed) string {
	if p.way.Mode == fabric.VXLAN {
		overhead := fabric.Overhead(p.way.Via)
		return fmt.Sprintf("let the network take packets of %d bytes between %s and %s (with vxlan's %d), or set --mtu on all nodes to what it takes, less %[4]d", p.Size+overhead, f.outer(), p.way.Via, overhead)
	}
	return fmt.Sprintf("let the network take packets of %d bytes to %s, or say that they are too large (ICMP), or set --mtu on all nodes to what it takes", p.Size, p.way.Via)
}
