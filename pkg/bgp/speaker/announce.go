package speaker

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

// GoBGP has one table of what the node tells of. Which announcements a prefix is in is said
// by marks on its path, large communities that no neighbour sees: export policies tell a
// neighbour of the paths with the mark of its announcement, and put that one's attributes
// in the marks' place.

// markOf is the mark of an announcement. AS 0 is nobody's (RFC 7607).
func markOf(a message.Announcement) *packet.LargeCommunity {
	h := fnv.New64a()
	h.Write([]byte(a.Name))
	sum := h.Sum64()
	return packet.NewLargeCommunity(0, uint32(sum>>32), uint32(sum))
}

// marked are the marks of the announcements that a prefix is in, and as a text.
type marked struct {
	text  string
	marks []*packet.LargeCommunity
}

func markAll(announcements []message.Announcement) map[netip.Prefix]marked {
	all := map[netip.Prefix]marked{}
	for _, a := range announcements {
		mark := markOf(a)
		text := mark.String() + " "
		for _, p := range a.Prefixes {
			// What is told now and what was told before have the same mark.
			if m := all[p]; !strings.Contains(m.text, text) {
				all[p] = marked{m.text + text, append(slices.Clip(m.marks), mark)}
			}
		}
	}
	return all
}

// tell has GoBGP have paths for these prefixes, marked so, and for no others.
func (s *speaker) tell(wanted map[netip.Prefix]marked) error {
	var add, remove []*apiutil.Path
	for p, m := range wanted {
		if s.announced[p] == m.text {
			continue
		}
		path, err := localPath(p, m.marks)
		if err != nil {
			return fmt.Errorf("announcing %s: %w", p, err)
		}
		add = append(add, path)
		s.announced[p] = m.text
	}
	for p := range s.announced {
		if _, is := wanted[p]; !is {
			path, err := localPath(p, nil)
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
func localPath(p netip.Prefix, marks []*packet.LargeCommunity) (*apiutil.Path, error) {
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
	if len(marks) > 0 {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeLargeCommunities(marks))
	}
	return path, nil
}
