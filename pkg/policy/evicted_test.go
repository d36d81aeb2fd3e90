package policy

import (
	"fmt"
	"net/netip"
	"testing"
)

// An address is evicted as long as somebody has it of whom the rules do not know, also where
// that one has come just when it was to be readmitted; and no longer.
func TestReadmission(t *testing.T) {
	s := newCrashSite(newProving(t), t.TempDir())
	s.node.Test(t, func() {
		s.must(s.reset())
		base := histories()[2].before
		p, err := s.start(-1)
		s.must(err)
		defer p.keeper.Close()
		s.must(p.learns(base.everything(), base.attached()))
		s.must(s.replace(nil, base.attached()))
		g := p.Gate.(*siteGate)
		check := func(when string, want ...netip.Addr) {
			t.Helper()
			got, err := p.evicted()
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: evicted are %v, %v; want %v", when, got, err, want)
			}
		}
		s.must(p.hears())
		check("all are known")
		gone := base.nobodyAt(lentNumber).attached()
		heir := base.heir().attached()
		lent4, lent6 := lent(ipv4), lent(ipv6)

		s.must(s.replace(base.attached(), heir))
		s.must(p.hears())
		check("one is not known", lent4, lent6)
		s.must(s.replace(heir, gone))
		s.must(p.hears())
		check("it is gone again")

		// Somebody is attached to what was nobody's, after the records were read.
		s.must(s.replace(gone, heir))
		s.must(s.replace(heir, gone))
		times := 0
		g.asked = func() {
			if times++; times == 2 {
				s.attached = heir
			}
		}
		s.must(p.hears())
		g.asked = nil
		check("one has come meanwhile", lent4, lent6)
		s.must(p.learns(Batch{}, heir))
		check("it is known")
	})
}
