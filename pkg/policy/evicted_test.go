package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// knowing starts a process that knows a cluster, whose pods are attached then.
func (s *crashSite) knowing(all *cluster) (*process, *siteGate) {
	s.must(s.reset())
	p, err := s.start(-1)
	s.must(err)
	s.must(p.learns(all.everything(), all.attached()))
	s.must(s.replace(nil, all.attached()))
	return p, p.Gate.(*siteGate)
}

// An address is evicted as long as somebody has it of whom the rules do not know, also where
// that one has come just when it was to be readmitted; and no longer.
func TestReadmission(t *testing.T) {
	s := newCrashSite(newProving(t), t.TempDir())
	s.node.Test(t, func() {
		base := histories()[2].before
		p, g := s.knowing(base)
		defer p.keeper.Close()
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

		// Somebody is attached to what was nobody's, when the records have been read.
		s.must(s.replace(gone, heir))
		s.must(s.replace(heir, gone))
		comes := func(from, to []Attached) {
			t.Helper()
			g.asked = func() {
				g.asked = nil
				s.must(s.replace(from, to))
			}
			s.must(p.hears())
		}
		comes(gone, heir)
		check("one has come meanwhile", lent4, lent6)
		s.must(p.learns(Batch{}, heir))
		check("it is known")
	})
}

// A pod is not opened for the sake of one that had its address when the records were read.
func TestOpeningOfAnother(t *testing.T) {
	s := newCrashSite(newProving(t), t.TempDir())
	s.node.Test(t, func() {
		base := histories()[2].before
		p, g := s.knowing(base)
		defer p.keeper.Close()
		first := base.attached()
		shut, err := g.Closed()
		s.must(err)
		if len(shut) == 0 {
			t.Fatal("nobody is closed: the test does not test anything")
		}
		// All of them end and others have their addresses, when the records have been read.
		second := slices.Clone(first)
		for i := range second {
			second[i].UID += " another"
		}
		g.asked = func() {
			g.asked = nil
			s.must(s.replace(first, second))
		}
		s.must(p.hears())
		if still, err := g.Closed(); err != nil || !slices.Equal(still, shut) {
			t.Errorf("closed are %v, %v, want %v", still, err, shut)
		}
		s.must(p.learns(Batch{}, second))
	})
}
