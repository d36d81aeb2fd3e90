package speaker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
	"github.com/flatnet-cni/flatnet/pkg/filewatch"
)

// families are GoBGP's numbers of those that flatnet has.
var families = map[packet.Family]message.Family{packet.RF_IPv4_UC: message.IPv4, packet.RF_IPv6_UC: message.IPv6}

// largestPassword is more than TCP takes.
const largestPassword = 1 << 10

func readPassword(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := filewatch.Read(path, largestPassword)
	if err != nil {
		return "", fmt.Errorf("reading passwordFile %s: %w", path, err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	const most = 80 // TCP_MD5SIG_MAXKEYLEN
	if password == "" || len(password) > most {
		return "", fmt.Errorf("reading passwordFile %s: it has %d bytes, and a password has 1 to %d", path, len(password), most)
	}
	return password, nil
}

// addressOf returns where a neighbour is. One behind an interface has to have been heard of:
// GoBGP looks in the kernel's list of neighbours, and so does this.
func (s *speaker) addressOf(n message.Neighbour) (netip.Addr, error) {
	if n.Interface == "" {
		return n.Address, nil
	}
	if before, is := s.known[n.Name]; is && before.Interface == n.Interface {
		return before.address, nil
	}
	return otherEnd(n.Interface)
}

// neighbour makes one as it is wanted. One that was different is made anew.
func (s *speaker) neighbour(n message.Neighbour, address netip.Addr, g message.Global) error {
	password, err := readPassword(n.PasswordFile)
	if err != nil {
		return err
	}
	want := configured{Neighbour: n, address: address, password: password}
	if before, is := s.known[n.Name]; is {
		if reflect.DeepEqual(before, want) {
			return nil
		}
		if err := s.remove(before); err != nil {
			return err
		}
	}
	peer := peerOf(want, g)
	s.mu.Lock()
	s.neighbours[want.address] = want
	s.mu.Unlock()
	if err := s.server.AddPeer(context.Background(), &api.AddPeerRequest{Peer: peer}); err != nil {
		s.forget(want)
		return err
	}
	s.known[n.Name] = want
	return nil
}

func (s *speaker) forget(k configured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.neighbours, k.address)
	delete(s.known, k.Name)
}

func (s *speaker) remove(k configured) error {
	err := s.server.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: k.address.String()})
	s.forget(k)
	if err != nil {
		return fmt.Errorf("removing peer %s: %w", k.Name, err)
	}
	return nil
}

// deferral is how long GoBGP waits for a neighbour's routes after a restart before it sends
// its own: it sends none that depend on them, and cannot be told not to wait.
const deferral = 1

func peerOf(n configured, g message.Global) *api.Peer {
	const mostOwnASN = 10
	p := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: n.address.String(), PeerAsn: n.ASN, AuthPassword: n.password, Description: n.Name,
			// Nodes of all racks may have one AS: what comes from another of them has it in its path.
			AllowOwnAsn: mostOwnASN, AllowAspathLoopLocal: true,
		},
		Timers:    &api.Timers{Config: &api.TimersConfig{HoldTime: uint64(n.HoldSeconds), KeepaliveInterval: uint64(max(1, n.HoldSeconds/3)), ConnectRetry: uint64(n.ConnectSeconds), IdleHoldTimeAfterReset: 1}},
		Transport: &api.Transport{RemotePort: uint32(n.Port)},
		// The first session of a run may always be one after a restart: where it is not,
		// the neighbour has nothing to keep.
		GracefulRestart: &api.GracefulRestart{Enabled: true, RestartTime: g.RestartSeconds, DeferralTime: deferral, LocalRestarting: true},
	}
	if n.Multihop > 1 {
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(n.Multihop)}
	}
	for number, family := range families {
		for _, wanted := range n.Families {
			if wanted == family {
				p.AfiSafis = append(p.AfiSafis, &api.AfiSafi{
					Config:            &api.AfiSafiConfig{Family: &api.Family{Afi: api.Family_Afi(number.Afi()), Safi: api.Family_Safi(number.Safi())}, Enabled: true},
					MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}},
				})
			}
		}
	}
	return p
}

var states = map[packet.FSMState]string{
	packet.BGP_FSM_IDLE: "idle", packet.BGP_FSM_CONNECT: "connect", packet.BGP_FSM_ACTIVE: "active",
	packet.BGP_FSM_OPENSENT: "opensent", packet.BGP_FSM_OPENCONFIRM: "openconfirm", packet.BGP_FSM_ESTABLISHED: "established",
}

// passing are reasons to go from one state to the next that say nothing of why there is no
// session, in GoBGP's words.
var passing = map[string]bool{
	"idle-hold-timer-expired": true, "new-connection": true, "open-msg-received": true, "open-msg-negotiated": true, "unknown": true, "dying": true,
}

func (s *speaker) session(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
	if e.Type == apiutil.PEER_EVENT_END_OF_INIT {
		return
	}
	n, known := s.named(e.Peer.State.NeighborAddress)
	if !known {
		return
	}
	state, reason := e.Peer.State.SessionState, e.Peer.State.DisconnectMessage
	if passing[reason] {
		reason = ""
	}
	s.out.tell(message.Event{Neighbour: n.Name, Session: &message.Session{
		State: states[state], Established: state == packet.BGP_FSM_ESTABLISHED, Reason: reason,
	}})
}

func (s *speaker) end(p *apiutil.Path, _ time.Time) {
	if n, known := s.named(p.PeerAddress); known {
		s.out.tell(message.Event{Neighbour: n.Name, End: familyOf(p)})
	}
}

// paths tells what neighbours tell. All of a list are of one neighbour.
func (s *speaker) paths(list []*apiutil.Path, _ time.Time) {
	var e message.Event
	for _, p := range list {
		n, known := s.named(p.PeerAddress)
		if !known || familyOf(p) == "" {
			continue
		}
		if e.Neighbour != n.Name {
			s.tellPaths(e)
			e = message.Event{Neighbour: n.Name}
		}
		nlri, is := p.Nlri.(*packet.IPAddrPrefix)
		if !is {
			continue
		}
		if p.Withdrawal {
			e.Withdrawn = append(e.Withdrawn, nlri.Prefix)
		} else if path, err := pathOf(p, nlri.Prefix, n, s.asn); err == nil {
			e.Paths = append(e.Paths, path)
		}
	}
	s.tellPaths(e)
}

func (s *speaker) tellPaths(e message.Event) {
	if len(e.Paths)+len(e.Withdrawn) > 0 {
		s.out.tell(e)
	}
}

// defaultLocalPref is that of a path that does not say (RFC 4271, 5.1.5).
const defaultLocalPref = 100

func pathOf(p *apiutil.Path, prefix netip.Prefix, n configured, own uint32) (message.Path, error) {
	path := message.Path{Prefix: prefix, LocalPref: defaultLocalPref, Internal: !p.IsFromExternal && p.PeerASN == n.ASN}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *packet.PathAttributeNextHop:
			path.NextHop = a.Value
		case *packet.PathAttributeMpReachNLRI:
			path.NextHop = a.Nexthop
		case *packet.PathAttributeLocalPref:
			path.LocalPref = a.Value
		case *packet.PathAttributeMultiExitDisc:
			path.MED = a.Value
		case *packet.PathAttributeOrigin:
			path.Origin = a.Value
		case *packet.PathAttributeAsPath:
			for _, segment := range a.Value {
				path.Length += segment.ASLen()
				path.Own = path.Own || slices.Contains(segment.GetAS(), own)
			}
		}
	}
	// A router without a global address on the link sends a link-local one beside, which
	// GoBGP does not keep: on a session of link-local addresses it is the router's own.
	if path.NextHop.IsUnspecified() && n.address.IsLinkLocalUnicast() {
		path.NextHop = n.address
	}
	if !path.NextHop.IsValid() || path.NextHop.IsUnspecified() {
		return path, errors.New("has no next hop")
	}
	if path.NextHop.IsLinkLocalUnicast() && path.NextHop.Zone() == "" {
		zone := n.Interface
		if zone == "" {
			zone = n.address.Zone()
		}
		path.NextHop = path.NextHop.WithZone(zone)
	}
	return path, nil
}
