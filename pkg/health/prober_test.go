package health

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// network is one in a test: what becomes of probes is as it says, at once.
type network struct {
	// fate says what comes of a probe; nothing comes where it returns nil.
	fate    func(to netip.Addr, full bool) *Message
	refuse  error // of sending
	sent    []netip.Addr
	full    int
	waiting []Message
	closed  bool
}

func (n *network) Send(to netip.Addr, sequence uint16, size int) error {
	n.sent = append(n.sent, to)
	if size > 0 {
		n.full++
	}
	if n.refuse != nil {
		return n.refuse
	}
	if m := n.fate(to, size > 0); m != nil {
		m.To, m.Sequence = to, sequence
		if !m.From.IsValid() {
			m.From = to
		}
		n.waiting = append(n.waiting, *m)
	}
	return nil
}

func (n *network) Receive(tell func(Message)) {
	for _, m := range n.waiting {
		tell(m)
	}
	n.waiting = nil
}

func (n *network) Close() { n.closed = true }

func arrives(netip.Addr, bool) *Message { return &Message{RoundTrip: 300 * time.Microsecond} }
func vanishes(netip.Addr, bool) *Message {
	return nil
}

// lab is a prober with a clock of its own.
type lab struct {
	*testing.T
	*Prober
	network *network
	now     time.Time
	changes int
}

func target(i int) Target {
	address := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
	return Target{Peer: fmt.Sprintf("n%d", i), Address: address, Way: "vxlan", Size: 1450, Own: []netip.Prefix{netip.PrefixFrom(address, 24).Masked()}}
}

func newLab(t *testing.T, targets int) *lab {
	l := &lab{T: t, network: &network{fate: arrives}, now: time.Unix(1000, 0)}
	l.Prober = NewProber("own", func() { l.changes++ }, func(time.Duration) {})
	l.SetNetwork(false, l.network)
	l.targets(targets)
	return l
}

func (l *lab) targets(n int) {
	var all []Target
	for i := range n {
		all = append(all, target(i))
	}
	l.SetTargets(all, l.now)
}

// pass lets time pass.
func (l *lab) pass(d time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); {
		l.now = l.now.Add(min(l.Step(l.now), end.Sub(l.now)))
	}
	l.Step(l.now)
}

func (l *lab) report(i int) Report {
	l.Helper()
	r, known := l.Report(target(i).Address)
	if !known {
		l.Fatalf("target %d is not known", i)
	}
	return r
}

func (l *lab) want(state State, full string) Report {
	l.Helper()
	r := l.report(0)
	if r.State != state || r.FullSize != full {
		l.Errorf("%s, full size %q, want %s, %q: %+v", r.State, r.FullSize, state, full, r)
	}
	return r
}

func TestLostAndFoundAgain(t *testing.T) {
	l := newLab(t, 1)
	l.want(Unknown, "")
	l.pass(7 * time.Second)
	if r := l.want(OK, FullOK); r.RoundTrip != 300*time.Microsecond || r.Lost != 0 || r.Sent == 0 || !r.Answered || !r.Watched {
		t.Errorf("%+v", r)
	}
	before := l.changes
	// A short interruption is none.
	l.network.fate = vanishes
	l.pass(3500 * time.Millisecond)
	l.network.fate = arrives
	l.pass(2 * time.Second)
	if r := l.want(OK, FullOK); r.Lost == 0 || l.changes != before {
		t.Errorf("%+v, %d changes", r, l.changes-before)
	}
	l.network.fate = vanishes
	cut := l.now
	l.pass(9500 * time.Millisecond)
	if r := l.want(Lost, ""); !r.Since.After(cut) || l.changes != before+1 {
		t.Errorf("%+v, %d changes", r, l.changes-before)
	}
	l.pass(time.Minute)
	if r := l.want(Lost, ""); r.Lost != window || r.RoundTrip != 0 || l.changes != before+1 {
		t.Errorf("%+v, %d changes", r, l.changes-before)
	}
	l.network.fate = arrives
	l.pass(7 * time.Second)
	if r := l.want(OK, FullOK); r.Lost != 0 {
		t.Errorf("what was lost before counts: %+v", r)
	}
}

func TestLossy(t *testing.T) {
	l := newLab(t, 1)
	n := 0
	l.network.fate = func(to netip.Addr, full bool) *Message {
		if n++; !full && n%4 == 0 {
			return nil
		}
		return arrives(to, full)
	}
	l.pass(time.Minute)
	if r := l.want(Lossy, FullOK); r.Lost < lossyLosses {
		t.Errorf("%+v", r)
	}
	l.network.fate = arrives
	l.pass(time.Minute)
	if r := l.want(OK, FullOK); r.Lost > lossyEnd {
		t.Errorf("%+v", r)
	}
}

// Half of the packets is lost: that is no interruption that ends again and again.
func TestHalfIsLost(t *testing.T) {
	l := newLab(t, 1)
	n := 0
	l.network.fate = func(to netip.Addr, full bool) *Message {
		if full {
			return nil
		}
		if n++; n%2 == 0 {
			return nil
		}
		return arrives(to, full)
	}
	l.pass(30 * time.Second)
	before := l.changes
	l.pass(time.Minute)
	if r := l.report(0); r.State != Lossy || l.changes != before {
		t.Errorf("%+v, %d changes in a minute", r, l.changes-before)
	}
}

func TestFullSize(t *testing.T) {
	l := newLab(t, 1)
	l.pass(5 * time.Second)
	l.network.fate = func(to netip.Addr, full bool) *Message {
		if full {
			return nil
		}
		return arrives(to, full)
	}
	l.pass(13 * time.Second)
	if r := l.want(OK, FullLost); r.Lost != 0 {
		t.Errorf("%+v", r)
	}
	// Somebody says that they are too large: pods are told, too, and send smaller ones.
	router := netip.MustParseAddr("172.30.0.254")
	l.network.fate = func(to netip.Addr, full bool) *Message {
		if full {
			return &Message{Kind: TooLarge, From: router, Text: "packet too large"}
		}
		return arrives(to, full)
	}
	l.pass(10 * time.Second)
	l.want(OK, FullOK)
	l.network.fate = vanishes
	l.pass(10 * time.Second)
	l.want(Lost, "")
}

func TestWhatOthersSay(t *testing.T) {
	l := newLab(t, 1)
	says := func(from, text string) {
		l.network.fate = func(netip.Addr, bool) *Message {
			return &Message{Kind: Unreachable, From: netip.MustParseAddr(from), Text: text}
		}
	}
	says("10.0.0.0", "host unreachable")
	l.pass(5 * time.Second)
	if r := l.want(Silent, ""); r.Sent != 0 || l.Counts().Refused == 0 {
		t.Errorf("%+v, %+v", r, l.Counts())
	}
	says("172.30.0.254", "network unreachable")
	sent := len(l.network.sent)
	l.pass(10 * time.Second)
	if r := l.want(Lost, ""); r.Complaint != "172.30.0.254 says: network unreachable" {
		t.Errorf("%+v", r)
	}
	if more := len(l.network.sent) - sent; more > 10 {
		t.Errorf("%d probes in 10 s, though each was answered at once", more)
	}
	l.network.refuse = errors.New("operation not permitted")
	l.pass(10 * time.Second)
	if r := l.want(Lost, ""); r.Complaint != "this node cannot send it: operation not permitted" {
		t.Errorf("%+v", r)
	}
	l.network.refuse = ErrBusy
	lost := l.Counts().Lost
	l.pass(10 * time.Second)
	if l.Counts().Lost != lost {
		t.Error("what was not sent was lost")
	}
	l.network.refuse, l.network.fate = nil, arrives
	l.pass(10 * time.Second)
	if r := l.want(OK, FullOK); r.Complaint != "" {
		t.Errorf("%+v", r)
	}
}

// What comes too late, twice, or to a question that nobody asked is nothing.
func TestStrayAnswers(t *testing.T) {
	l := newLab(t, 1)
	l.network.fate = vanishes
	l.pass(20 * time.Second)
	for sequence := range uint16(200) {
		if sequence < l.sequence-2 {
			l.network.waiting = append(l.network.waiting, Message{From: target(0).Address, To: target(0).Address, Sequence: sequence})
		}
	}
	l.network.waiting = append(l.network.waiting, Message{To: target(9).Address, Sequence: l.sequence})
	l.Step(l.now)
	l.want(Lost, "")
}

// However many targets there are, and whatever becomes of probes, the packets are
// bounded; those that are watched are asked all the time, and the others, too.
func TestPacketsAreBounded(t *testing.T) {
	for _, fate := range []func(netip.Addr, bool) *Message{arrives, vanishes} {
		l := newLab(t, 1000)
		l.network.fate = fate
		l.pass(20 * time.Second)
		const seconds = 300
		begin := len(l.network.sent)
		for range seconds {
			before := len(l.network.sent)
			l.pass(time.Second)
			if n := len(l.network.sent) - before; n > rate+burst {
				t.Fatalf("%d packets in a second", n)
			}
		}
		sent := l.network.sent[begin:]
		if n := len(sent) / seconds; n > rate {
			t.Errorf("%d packets a second", n)
		}
		asked := map[netip.Addr]int{}
		for _, a := range sent {
			asked[a]++
		}
		watched := 0
		for i := range 1000 {
			r := l.report(i)
			if r.Watched {
				watched++
			}
			if n := asked[target(i).Address]; n == 0 || r.Watched && n < seconds/5 {
				t.Errorf("%s was asked %d times, watched %t", target(i).Peer, n, r.Watched)
			}
		}
		if watched != mostWatched {
			t.Errorf("%d are watched", watched)
		}
	}
}

// In a large cluster, too, one that is watched is lost within ten seconds, one that is not
// soon after it was asked once; and when all are cut off, none takes long.
func TestLargeCluster(t *testing.T) {
	l := newLab(t, 1000)
	l.pass(300 * time.Second)
	watched, other := -1, -1
	for i := range 1000 {
		if l.report(i).Watched {
			watched = i
		} else {
			other = i
		}
	}
	l.network.fate = func(to netip.Addr, full bool) *Message {
		if to == target(watched).Address || to == target(other).Address {
			return nil
		}
		return arrives(to, full)
	}
	l.pass(10 * time.Second)
	if r := l.report(watched); r.State != Lost {
		t.Errorf("the one that is watched: %+v", r)
	}
	l.pass(220 * time.Second)
	if r := l.report(other); r.State != Lost {
		t.Errorf("the other: %+v", r)
	}
	l.network.fate = arrives
	l.pass(5 * time.Second)
	for _, i := range []int{watched, other} {
		if r := l.report(i); r.State != OK {
			t.Errorf("%+v", r)
		}
	}
	l.network.fate = vanishes
	l.pass(15 * time.Second)
	lost := 0
	for i := range 1000 {
		if r := l.report(i); r.State == Lost {
			lost++
		} else if r.Watched {
			t.Errorf("after 15 s: %+v", r)
		}
	}
	t.Logf("%d are lost", lost)
}

func TestTargetsComeAndGo(t *testing.T) {
	l := newLab(t, 3)
	l.pass(10 * time.Second)
	l.targets(2)
	if _, known := l.Report(target(2).Address); known {
		t.Error("one that is gone is known")
	}
	before := l.report(0)
	moved := target(1)
	moved.Way = "direct"
	l.SetTargets([]Target{target(0), moved}, l.now)
	if r := l.report(0); r != before {
		t.Errorf("what was known is forgotten: %+v", r)
	}
	if r := l.report(1); r.State != Unknown || r.Answered {
		t.Errorf("another way begins anew: %+v", r)
	}
	l.pass(10 * time.Second)
	if r := l.report(1); r.State != OK {
		t.Errorf("%+v", r)
	}
	l.targets(0)
	sent := len(l.network.sent)
	l.pass(10 * time.Second)
	if len(l.network.sent) != sent {
		t.Error("nobody is there, and probes are sent")
	}
	// Without a network nothing is sent, and nothing is lost.
	l.targets(2)
	l.SetNetwork(false, nil)
	l.pass(20 * time.Second)
	if r := l.report(0); r.State != Unknown || !l.network.closed {
		t.Errorf("%+v", r)
	}
}

// Everybody is watched by about as many as it watches, and a node that comes changes one
// place of a sample.
func TestSample(t *testing.T) {
	const nodes, most = 1000, 50
	var all []Target
	for i := range nodes {
		all = append(all, target(i))
	}
	watchers := map[string]int{}
	for i, own := range all {
		others := slices.Delete(slices.Clone(all), i, i+1)
		chosen := sample(own.Peer, others, most)
		if len(chosen) != most {
			t.Fatalf("%d are chosen", len(chosen))
		}
		for name := range chosen {
			watchers[name]++
		}
		more := sample(own.Peer, append(others, target(nodes)), most)
		same := 0
		for name := range more {
			if chosen[name] {
				same++
			}
		}
		if same < most-1 {
			t.Fatalf("one more node changed %d of %d", most-same, most)
		}
	}
	for _, n := range all {
		if w := watchers[n.Peer]; w != most {
			t.Errorf("%s is watched by %d", n.Peer, w)
		}
	}
	if n := len(sample("own", all[:20], most)); n != 20 {
		t.Errorf("of 20 nodes %d are chosen", n)
	}
}
