package speaker

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"

	"github.com/osrg/gobgp/v4/api"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

// recipients are those who are told of an announcement, by their addresses.
type recipients struct {
	message.Announcement // without prefixes
	addresses            []string
}

// recipientsOf returns them for each announcement that has any. Who could not be found yet
// is not among them.
func recipientsOf(announcements []message.Announcement, found map[string]netip.Addr) (all []recipients) {
	for _, a := range announcements {
		r := recipients{Announcement: a}
		r.Prefixes = nil
		for _, name := range a.To {
			if address, is := found[name]; is {
				r.addresses = append(r.addresses, netip.PrefixFrom(address.WithZone(""), address.BitLen()).String())
			}
		}
		if len(r.addresses) > 0 { // to GoBGP a set of none is everybody
			all = append(all, r)
		}
	}
	return all
}

// announce has neighbours told of these announcements, and of nothing else. While who is told
// what is another, each prefix has the marks of before too, so that none is withdrawn that is
// told again at once.
func (s *speaker) announce(announcements []message.Announcement, found map[string]netip.Addr) error {
	if to := recipientsOf(announcements, found); !reflect.DeepEqual(to, s.recipients) {
		if err := s.tell(markAll(append(announcements[:len(announcements):len(announcements)], s.told...))); err != nil {
			return err
		}
		if err := s.exportTo(to); err != nil {
			return fmt.Errorf("setting whom to tell what: %w", err)
		}
		s.recipients = to
	}
	s.told = announcements
	return s.tell(markAll(announcements))
}

// exportTo makes the export policy. It is another one each time, since one in use cannot be
// changed as a whole.
func (s *speaker) exportTo(all []recipients) error {
	ctx := context.Background()
	s.generation++
	name := fmt.Sprintf("tell %d", s.generation)
	policy := &api.Policy{Name: name}
	for i, r := range all {
		neighbours, marks := fmt.Sprintf("%s neighbours %d", name, i), fmt.Sprintf("%s marks %d", name, i)
		for _, set := range []*api.DefinedSet{
			{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: neighbours, List: r.addresses},
			{DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, Name: marks, List: []string{markOf(r.Announcement).String()}},
		} {
			if err := s.server.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
				return err
			}
		}
		policy.Statements = append(policy.Statements, &api.Statement{
			Name: fmt.Sprintf("%s %d", name, i),
			Conditions: &api.Conditions{
				RouteType:         api.Conditions_ROUTE_TYPE_LOCAL,
				NeighborSet:       &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: neighbours},
				LargeCommunitySet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: marks},
			},
			Actions: actionsOf(r.Announcement),
		})
	}
	if err := s.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: policy}); err != nil {
		return err
	}
	if err := s.assign(api.PolicyDirection_POLICY_DIRECTION_EXPORT, name); err != nil {
		return err
	}
	if err := s.forgetPolicy(s.policy); err != nil {
		return err
	}
	s.policy = policy
	return s.server.ResetPeer(ctx, &api.ResetPeerRequest{Address: "all", Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT})
}

// actionsOf are the attributes of what is told.
func actionsOf(a message.Announcement) *api.Actions {
	small := &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE}
	large := &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE} // the marks
	for _, c := range a.Communities {
		if c.Large {
			large.Communities = append(large.Communities, fmt.Sprintf("%d:%d:%d", c.Parts[0], c.Parts[1], c.Parts[2]))
		} else {
			small.Communities = append(small.Communities, fmt.Sprintf("%d:%d", c.Parts[0], c.Parts[1]))
		}
	}
	actions := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT, Community: small, LargeCommunity: large}
	if a.MED != nil {
		actions.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(*a.MED)}
	}
	if a.LocalPref != nil {
		actions.LocalPref = &api.LocalPrefAction{Value: *a.LocalPref}
	}
	return actions
}

// forgetPolicy removes one that is not in use any more, with its sets.
func (s *speaker) forgetPolicy(policy *api.Policy) error {
	if policy == nil {
		return nil
	}
	ctx := context.Background()
	if err := s.server.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: &api.Policy{Name: policy.Name}, All: true}); err != nil {
		return err
	}
	for _, statement := range policy.Statements {
		for _, set := range []*api.DefinedSet{
			{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: statement.Conditions.NeighborSet.Name},
			{DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, Name: statement.Conditions.LargeCommunitySet.Name},
		} {
			if err := s.server.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: set, All: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// assign has a policy decide about all that comes, or goes. What it does not let pass is
// rejected.
func (s *speaker) assign(direction api.PolicyDirection, policy string) error {
	return s.server.SetPolicyAssignment(context.Background(), &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name: "global", Direction: direction, Policies: []*api.Policy{{Name: policy}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
	}})
}
