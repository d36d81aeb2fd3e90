package announce

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/lease"
)

func TestWords(t *testing.T) {
	own := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	w := word{node: "n1", id: 7, number: 70, unable: true, written: true, asks: true}
	for i := range leavesOfWord + 1 {
		w.leaves = append(w.leaves, leave{uint64(i), uint64(1000 + i)})
	}
	var leaves []leave
	frames := writeWord(own, w)
	for _, frame := range frames {
		if len(frame) > 1514 {
			t.Errorf("a frame has %d bytes", len(frame))
		}
		got, good := readWord(append(slices.Clone(frame), make([]byte, 60)...))
		if !good || got.node != w.node || got.id != w.id || got.number != w.number || !got.unable || !got.written || !got.asks {
			t.Fatalf("%+v %t", got, good)
		}
		leaves = append(leaves, got.leaves...)
		for i := range frame {
			if _, good := readWord(frame[:i]); good {
				t.Errorf("%d bytes of it are read", i)
			}
		}
	}
	if len(frames) != 2 || !reflect.DeepEqual(leaves, w.leaves) {
		t.Errorf("%d frames, leaves %v", len(frames), leaves)
	}
	if frames := writeWord(own, word{node: "n1"}); len(frames) != 1 {
		t.Errorf("without leave it takes %d frames", len(frames))
	}
}

// world is nodes that answer for one address, an API server and a segment, in a time of
// its own. A node does here what [Announcer.pass] and [lease.Holder] do there.
type world struct {
	now    time.Duration
	random *rand.Rand
	loss   int // of a hundred words
	nodes  []*modelNode
	api    map[string]int // of each node, the number of its last renewal
	late   []letter
}

type modelNode struct {
	*world
	name      string
	pact      *pact
	reaches   bool // the API server
	watches   bool
	alive     bool
	hears     map[string]bool
	seen      map[string]lease.Seen
	known     map[string]int
	begun     map[int]time.Duration
	from      time.Duration // below 0 for never
	owns      bool
	spoke     time.Duration
	wrote     int
	confirmed int
	kept      time.Duration // until when what a program before has promised holds
	file      time.Duration // and this one
}

// letter is a word on the way, or news of a renewal.
type letter struct {
	at   time.Duration
	does func()
}

const never = -time.Hour

func (w *world) at(d time.Duration) time.Time { return time.Unix(1e6, 0).Add(d) }

func newWorld(nodes, loss int, seed uint64) *world {
	w := &world{loss: loss, random: rand.New(rand.NewPCG(seed, 70)), api: map[string]int{}}
	for i := range nodes {
		n := &modelNode{world: w, name: fmt.Sprintf("n%d", i), reaches: true, watches: true, hears: map[string]bool{}}
		w.nodes = append(w.nodes, n)
		w.api[n.name] = 1 // its Lease is there
		n.start()
	}
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			n.hears[o.name] = true
		}
	}
	return w
}

// start begins a program that knows nothing.
func (n *modelNode) start() {
	n.alive, n.owns, n.from, n.wrote, n.confirmed, n.spoke = true, false, never, 0, 0, never
	n.kept = n.file
	n.seen, n.known, n.begun = map[string]lease.Seen{}, map[string]int{}, map[int]time.Duration{}
	n.pact = newPact(n.name, n.valid)
	n.pact.now = func() time.Time { return n.world.at(n.now) }
	n.pact.id = n.random.Uint64()
}

func (n *modelNode) valid() bool { return n.from != never && n.now < n.from+Duration }

func (n *modelNode) answers() bool {
	return n.alive && n.owns && (n.valid() || n.pact.holds())
}

func (w *world) later(most time.Duration, does func()) {
	w.late = append(w.late, letter{w.now + time.Duration(w.random.Int64N(int64(most))), does})
}

// step is a tenth of a second.
func (w *world) step() {
	w.now += 100 * time.Millisecond
	due := w.late
	w.late = nil
	for _, l := range due {
		if l.at <= w.now {
			l.does()
		} else {
			w.late = append(w.late, l)
		}
	}
	w.random.Shuffle(len(w.nodes), func(i, j int) { w.nodes[i], w.nodes[j] = w.nodes[j], w.nodes[i] })
	for _, n := range w.nodes {
		if n.alive {
			n.renew()
			n.watch()
			n.pass()
			n.talk()
		}
	}
}

// renew writes the own Lease every two seconds.
func (n *modelNode) renew() {
	if !n.reaches || len(n.known) == 0 || n.now%Interval != 0 {
		return
	}
	n.api[n.name]++
	n.begun[n.api[n.name]], n.wrote = n.now, n.api[n.name]
}

// watch brings what the API server has.
func (n *modelNode) watch() {
	if !n.reaches || !n.watches {
		return
	}
	for node, number := range n.api {
		if n.known[node] == number {
			continue
		}
		n.known[node] = number
		n.seen[node] = lease.Seen{Name: node, Holder: node, At: n.world.at(n.now), Annotations: Member{Node: node, Interfaces: []string{"eth0"}}.Says()}
		if begun, is := n.begun[number]; node == n.name && is {
			n.from, n.confirmed = begun, number
		}
	}
}

func (n *modelNode) pass() {
	var all []lease.Seen
	var nodes []string
	for node, s := range n.seen {
		if at := n.pact.promised(node); at.After(s.At) {
			s.At = at
		}
		all, nodes = append(all, s), append(nodes, node)
	}
	if !n.valid() {
		n.owns = n.owns && n.pact.holds()
		return
	}
	members, _, _ := living(all, n.world.at(n.from), n.world.at(n.now))
	bound := n.pact.bound()
	if n.now < n.kept {
		bound = n.world.at(n.kept)
	}
	n.pact.need(nodes)
	node, _ := choose(at(1), members)
	switch {
	case node != n.name:
		n.owns = false
	case !n.owns && bound.IsZero():
		n.pact.takes()
		n.owns = true
	}
}

func (n *modelNode) talk() {
	unable := n.from == never || n.now-n.from >= overdue
	if !n.pact.speaks(unable) || n.now-n.spoke < wordInterval {
		return
	}
	n.spoke = n.now
	said := n.pact.speak(unable, n.wrote > n.confirmed, func(node string) bool {
		s, is := n.seen[node]
		return is && n.world.at(n.now).Sub(s.At) < Duration
	})
	if len(said.leaves) > 0 {
		n.file = n.now + Duration
	}
	for _, o := range n.nodes {
		if o != n && o.hears[n.name] && n.random.IntN(100) >= n.loss {
			n.later(300*time.Millisecond, func() {
				if o.alive {
					o.pact.hear(said)
				}
			})
		}
	}
}

func (w *world) who() (all []string) {
	for _, n := range w.nodes {
		if n.answers() {
			all = append(all, n.name)
		}
	}
	slices.Sort(all)
	return all
}

// run lets time pass, and returns for how long nobody, and several answered.
func (w *world) run(of time.Duration) (nobody, several time.Duration) {
	for end := w.now + of; w.now < end; {
		w.step()
		switch n := len(w.who()); {
		case n == 0:
			nobody += 100 * time.Millisecond
		case n > 1:
			several += 100 * time.Millisecond
		}
	}
	return nobody, several
}

func (w *world) each(f func(*modelNode)) {
	for _, n := range w.nodes {
		f(n)
	}
}

// reach says which nodes reach the API server.
func (w *world) reach(which string) {
	w.each(func(n *modelNode) { n.reaches = strings.Contains(which, n.name) })
}

// cut keeps the nodes that it names from hearing the others, and the others from hearing them.
func (w *world) cut(which string) {
	w.each(func(n *modelNode) {
		w.each(func(o *modelNode) {
			n.hears[o.name] = strings.Contains(which, n.name) == strings.Contains(which, o.name)
		})
	})
}

// Nobody stops while no node reaches the API server and all hear each other; whoever is
// missing stops all.
func TestTogether(t *testing.T) {
	for seed := range uint64(30) {
		settled := func() (w *world, owner string) {
			w = newWorld(3, 2, seed)
			w.run(time.Minute)
			all := w.who()
			if len(all) != 1 {
				t.Fatalf("%v answer", all)
			}
			return w, all[0]
		}
		expect := func(what string, w *world, of, nobody time.Duration, who string) {
			t.Helper()
			silent, several := w.run(of)
			if got := fmt.Sprint(w.who()); several > 0 || silent > nobody || who != "" && got != who {
				t.Fatalf("seed %d: %s: %s answers, want %s; nobody for %s, several for %s", seed, what, got, who, silent, several)
			}
		}
		w, owner := settled()
		w.reach("")
		expect("no API server", w, 10*time.Minute, 0, "["+owner+"]")
		w.reach("n0 n1 n2")
		w.each(func(n *modelNode) { n.watches = n.name != owner })
		expect("the API server is back, and the watch later", w, 30*time.Second, 0, "["+owner+"]")
		w.each(func(n *modelNode) { n.watches = true })
		expect("all is as before", w, time.Minute, 0, "["+owner+"]")

		w.reach("")
		w.run(time.Minute)
		w.cut(owner)
		expect("the owner is cut off", w, time.Minute, time.Minute, "[]")
		w.cut("")
		expect("it is heard again", w, time.Minute, time.Minute, "[]")
		w.reach("n0 n1 n2")
		w.run(time.Minute) // whoever is back first takes it over, until the owner is
		expect("all is as before", w, time.Minute, 0, "["+owner+"]")

		w, owner = settled()
		w.reach("")
		w.cut(owner)
		expect("no API server, and the owner is cut off", w, time.Minute, time.Minute, "[]")

		w, owner = settled()
		w.reach(strings.ReplaceAll("n0 n1 n2", owner, ""))
		w.run(Duration + 2*Interval)
		if got := w.who(); len(got) != 1 || got[0] == owner {
			t.Fatalf("seed %d: only %s does not reach the API server, and %v answer", seed, owner, got)
		}

		w, owner = settled()
		w.reach("")
		w.run(time.Minute)
		w.each(func(n *modelNode) { n.alive = n.name == owner || n.name == "n0" })
		expect("one has died", w, time.Minute, time.Minute, "")
		if dead := slices.ContainsFunc(w.nodes, func(n *modelNode) bool { return !n.alive }); dead && len(w.who()) > 0 {
			t.Fatalf("seed %d: one has died, and %v answer", seed, w.who())
		}
	}
}

// Whatever happens to nodes and networks, two do not answer for longer than a Lease, and
// not at all where one of them has no valid Lease.
func TestNeverTwo(t *testing.T) {
	var together, several time.Duration
	for seed := range uint64(60) {
		w := newWorld(2+int(seed%3), 20, seed)
		w.run(30 * time.Second)
		var two time.Duration
		for range 6000 {
			if w.random.IntN(40) == 0 {
				n, o := w.nodes[w.random.IntN(len(w.nodes))], w.nodes[w.random.IntN(len(w.nodes))]
				switch w.random.IntN(12) {
				case 0:
					w.reach("")
				case 1:
					w.reach("n0 n1 n2 n3")
				case 2:
					w.cut(n.name)
				case 3:
					w.cut("")
				case 4:
					n.hears[o.name] = !n.hears[o.name]
				case 5:
					n.reaches = !n.reaches
				case 6:
					n.watches = !n.watches
				case 7:
					n.alive = false
				case 8:
					n.start()
				default: // time to settle
					w.each(func(n *modelNode) {
						if !n.alive {
							n.start()
						}
					})
				}
			}
			w.step()
			all := w.who()
			invalid := 0
			w.each(func(n *modelNode) {
				if n.answers() && !n.valid() {
					invalid++
				}
			})
			switch {
			case len(all) < 2:
				two = 0
				if invalid > 0 {
					together += 100 * time.Millisecond
				}
				continue
			case invalid > 0:
				t.Errorf("seed %d: at %s %v answer, and %d of them have no valid Lease", seed, w.now, all, invalid)
			}
			if two += 100 * time.Millisecond; two > Duration {
				t.Fatalf("seed %d: at %s %v have answered for %s", seed, w.now, all, two)
			}
			several += 100 * time.Millisecond
		}
	}
	if together == 0 {
		t.Error("it has never come to it")
	}
	t.Logf("a node answered without a valid Lease for %s; two answered while both had one, and one of them did not know yet, for %s", together, several)
}

// What was promised holds for a Lease's time, whoever reads it, and no longer.
func TestPromise(t *testing.T) {
	path := filepath.Join(t.TempDir(), "promise")
	if left := promised(path); left != 0 {
		t.Errorf("nothing was promised, and it holds for %s", left)
	}
	must(t, promise(path))
	if left := promised(path); left <= 0 || left > Duration {
		t.Errorf("it holds for %s", left)
	}
	for text, want := range map[string]time.Duration{"1\n": 0, "": Duration, "soon": Duration, "1": Duration, "9223372036854775807\n": Duration} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if left := promised(path); left != want {
			t.Errorf("%q holds for %s, want %s", text, left, want)
		}
	}
}
