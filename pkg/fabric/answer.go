package fabric

import (
	"net/netip"

	"github.com/flatnet-cni/flatnet/ipam"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// Answering is the address of a podCIDR by which its node answers probes: the gateway,
// which no pod ever gets. It is zero where there is none, as in podCIDRs of one or two
// addresses.
func Answering(podCIDR netip.Prefix) netip.Addr {
	r, err := ipam.NewRange(podCIDR)
	if err != nil {
		return netip.Addr{} // nor do pods get addresses of it
	}
	return r.Gateway
}

// answered are the addresses that the node answers to, so that others can tell
// whether what goes to its pods gets through. The kernel answers by itself, while the
// agent is away, too. A local route and no address: nothing is ever sent from it
// unasked.
func (s *surroundings) answered(podCIDRs []netip.Prefix) (all []kernel.Answered) {
	if !s.Answer {
		return nil
	}
	for _, c := range podCIDRs {
		if a := Answering(c); a.IsValid() {
			all = append(all, kernel.Answered{Address: a, Lasting: true})
		}
	}
	return all
}
