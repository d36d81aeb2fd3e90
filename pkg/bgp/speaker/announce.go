package speaker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

// announce has GoBGP tell neighbours of these prefixes, and of no others.
func (s *speaker) announce(a message.Announcement) error {
	raw, err := json.Marshal(message.Announcement{Communities: a.Communities, MED: a.MED, LocalPref: a.LocalPref})
	if err != nil {
		return fmt.Errorf("encoding attributes: %w", err)
	}
	attributes := string(raw)
	wanted := make(map[netip.Prefix]bool, len(a.Prefixes))
	var add, remove []*apiutil.Path
	for _, p := range a.Prefixes {
		wanted[p] = true
		if before, is := s.announced[p]; !is || before != attributes {
			path, err := localPath(p, a)
			if err != nil {
				return fmt.Errorf("announcing %s: %w", p, err)
			}
			add = append(add, path)
			s.announced[p] = attributes
		}
	}
	for p := range s.announced {
		if !wanted[p] {
			path, err := localPath(p, a)
			if err != nil {
				return fmt.Errorf("withdrawing %s: %w", p, err)
			}
			path.Withdrawal = true
			remove = append(remove, path)
			delete(s.announced, p)
		}
	}
	var errs []error
	if len(add) > 0 {
		_, err := s.server.AddPath(apiutil.AddPathRequest{Paths: add})
		errs = append(errs, err)
	}
	if len(remove) > 0 {
		errs = append(errs, s.server.DeletePath(apiutil.DeletePathRequest{Paths: remove}))
	}
	return errors.Join(errs...)
}

// localPath is a path to what is here: the next hop is the address that each session has
// on this side.
func localPath(p netip.Prefix, a message.Announcement) (*apiutil.Path, error) {
	nlri, err := packet.NewIPAddrPrefix(p)
	if err != nil {
		return nil, err
	}
	const fromIGP = 0 // RFC 4271, 5.1.1
	path := &apiutil.Path{Nlri: nlri, Family: packet.RF_IPv4_UC, Age: time.Now().Unix(), Attrs: []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(fromIGP)}}
	if p.Addr().Is4() {
		hop, err := packet.NewPathAttributeNextHop(netip.IPv4Unspecified())
		if err != nil {
			return nil, err
		}
		path.Attrs = append(path.Attrs, hop)
	} else {
		path.Family = packet.RF_IPv6_UC
		reach, err := packet.NewPathAttributeMpReachNLRI(packet.RF_IPv6_UC, []packet.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
		if err != nil {
			return nil, err
		}
		path.Attrs = append(path.Attrs, reach)
	}
	if a.MED != nil {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeMultiExitDisc(*a.MED))
	}
	if a.LocalPref != nil {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeLocalPref(*a.LocalPref))
	}
	var small []uint32
	var large []*packet.LargeCommunity
	for _, c := range a.Communities {
		if c.Large {
			large = append(large, packet.NewLargeCommunity(c.Parts[0], c.Parts[1], c.Parts[2]))
		} else {
			small = append(small, c.Parts[0]<<16|c.Parts[1])
		}
	}
	if len(small) > 0 {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeCommunities(small))
	}
	if len(large) > 0 {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeLargeCommunities(large))
	}
	return path, nil
}
