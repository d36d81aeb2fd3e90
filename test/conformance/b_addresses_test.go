package conformance

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/flatnet-cni/flatnet/test/pace"
)

// knownWrongAddressItems are about what IPAM plugins are known to get wrong.
var knownWrongAddressItems = []item{
	{"B7", should, "a released address is given again only after the others", func(s *stage) {
		conf := withIPAM(s.conf("1.1.0"), object{"ranges": [][]object{{{"subnet": subnet4, "rangeStart": "10.1.2.2", "rangeEnd": "10.1.2.4"}}}})
		a, first := s.attach("a", conf)
		_, second := s.attach("b", conf)
		s.del(a, conf)
		_, third := s.attach("c", conf)
		_, fourth := s.attach("d", conf)
		if s.of(third, false) == s.of(first, false) || s.of(fourth, false) != s.of(first, false) {
			s.failf("of three addresses %v was released while %v was in use; then %v and %v were given",
				s.of(first, false), s.of(second, false), s.of(third, false), s.of(fourth, false))
		}
	}},
	{"B8", should, "a record that a crash left empty does not take an address away for ever", func(s *stage) {
		conf := s.single("1.1.0")
		s.expect(os.MkdirAll(filepath.Join(s.dataDir(), network), 0o700))
		s.expect(os.WriteFile(s.record(netip.MustParseAddr("10.1.2.5")), nil, 0o600))
		a, res := s.attach("a", conf)
		s.works(a, res)
		if !s.reserved(s.of(res, false), a) {
			s.failf("the address is in use, but reserved is %v", s.reservations(network))
		}
	}},
	{"B9", should, "an address whose pod and interface are gone is free, if there is no other", func(s *stage) {
		// A plugin may take a pod for alive because the number of its namespace
		// has gone to a new one in the meantime; not every time, though.
		var r reply
		for i := range 4 {
			if r = afterLoss(s, i); r.exit == 0 {
				return
			}
		}
		s.failf("ADD: %v", r)
	}},
	{"B10", should, "without a configured mtu the pod's is not larger than that of the node's uplink", func(s *stage) {
		uplink := links(s.node.Namespace)["eth0"]
		s.expect(s.node.Netlink().LinkSetMTU(uplink, 1400))
		a, _ := s.attach("a", s.conf("1.1.0"))
		if mtu := links(a.space)[a.ifname].Attrs().MTU; mtu > 1400 {
			s.failf("the uplink's mtu is 1400, the pod's %d", mtu)
		}
	}},
}

// afterLoss executes ADD with a range whose only address was given to a pod that
// disappeared without DEL.
func afterLoss(s *stage, attempt int) reply {
	conf := s.single("1.1.0")
	gone, res := s.attach(fmt.Sprint("gone", attempt), conf)
	host, err := res.host()
	s.expect(err)
	s.expect(gone.space.Delete())
	s.eventually("the interface of a pod that is gone goes too", func() bool { return links(s.node.Namespace)[host] == nil })
	a := s.pod(fmt.Sprint("a", attempt))
	r := s.exec("ADD", a, conf)
	if r.exit == 0 {
		s.works(a, s.added(r))
	}
	s.del(gone.via(""), conf)
	return r
}

// eventually waits until a condition holds that the kernel brings about.
func (s *stage) eventually(what string, holds func() bool) {
	if _, err := pace.Await(pace.Far(), func() error {
		if !holds() {
			return errors.New("it is not so")
		}
		return nil
	}); err != nil {
		s.failf("waiting until %s: %v", what, err)
	}
}
