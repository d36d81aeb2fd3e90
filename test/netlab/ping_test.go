package netlab

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/pace"
)

func TestPingSeesLoss(t *testing.T) {
	lab := Start(t)
	lan := lab.Segment("lan")
	a := lab.Node("a", lan.Port("192.0.2.1/24", "2001:db8::1/64"))
	lab.Node("b", lan.Port("192.0.2.2/24", "2001:db8::2/64"))
	for _, c := range []struct {
		to   string
		wait time.Duration
		lost bool
	}{{"192.0.2.2", pace.Far(), false}, {"2001:db8::2", pace.Far(), false}, {"192.0.2.77", 10 * time.Millisecond, true}} {
		// Two that do not take each other's answers.
		var pings []*Ping
		for range 2 {
			p, err := a.Ping(netip.MustParseAddr(c.to), time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			pings = append(pings, p)
		}
		for i, p := range pings {
			if _, err := pace.Await(pace.Far(), func() error {
				e, err := p.Echoes()
				if err == nil && e.Sent < 20 {
					err = fmt.Errorf("%d sent, want 20", e.Sent)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			e, err := p.Stop(c.wait)
			if err != nil || e.Sent < 20 || (e.Lost() > 0) != c.lost || (e.Slowest == 0) != c.lost {
				t.Errorf("%s, ping %d: %+v, %v", c.to, i, e, err)
			}
		}
	}
}

// An answer counts once, however late it comes, and only if there was a request.
func TestPingCountsAnswersOnce(t *testing.T) {
	p := &Ping{begin: time.Now(), answered: make([]bool, 70000), echoes: Echoes{Sent: 70000}, news: make(chan struct{}, 1)}
	for _, c := range []struct {
		number   uint32
		answered int
	}{{1, 1}, {0, 2}, {1, 2}, {65536 + 1, 3}, {69999, 4}, {70000, 4}} {
		p.note(c.number, 0)
		if e, _ := p.Echoes(); e.Answered != c.answered || e.Lost() != 70000-c.answered {
			t.Errorf("after the answer to %d: %+v, want %d answered", c.number, e, c.answered)
		}
	}
}
