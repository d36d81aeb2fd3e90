package service

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

var update = flag.Bool("update", false, "write what the golden files are compared with")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs: see it with\n\tgo test ./pkg/service -run %s -update; git diff pkg/service/testdata", path, t.Name())
	}
}

var endpointLine = regexp.MustCompile(`^(.* endpoints-.* )(\d+)( : )(.*\n)$`)

// renumbered sorts the lines, and gives the endpoints of each front numbers in their
// order: which they have depends on what was before. That there are no gaps, and that
// none is there twice, does not.
func renumbered(t testing.TB, text string) string {
	t.Helper()
	type list struct {
		front string
		local bool
	}
	lists := map[list][]string{} // the endpoints, by number
	var lines []string
	for line := range strings.Lines(text) {
		m := endpointLine.FindStringSubmatch(line)
		if m == nil {
			lines = append(lines, line)
			continue
		}
		number, err := strconv.Atoi(m[2])
		must(t, err)
		l := list{m[1], number >= localOffset}
		if number %= localOffset; number >= len(lists[l]) {
			lists[l] = append(lists[l], make([]string, number+1-len(lists[l]))...)
		}
		lists[l][number] = m[4]
	}
	for l, endpoints := range lists {
		slices.Sort(endpoints)
		for i, e := range endpoints {
			if e == "" || i > 0 && endpoints[i-1] == e {
				t.Errorf("%q, %t: a number has no endpoint, or an endpoint two numbers: %q", l.front, l.local, endpoints)
			}
			if l.local {
				i += localOffset
			}
			lines = append(lines, fmt.Sprintf("%s%d : %s", l.front, i, e))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// goldenWorld has every kind of Service.
const goldenWorld = `
web cluster=10.96.0.1,fd00:96::1 http:80@30080 metrics:9090
  http:8080,metrics:9090 10.244.1.5@n1 10.244.2.6@n2 10.244.3.7@n3
  http:8080,metrics:9090 fd00:244:1::5@n1 fd00:244:2::6@n2
dns cluster=10.96.0.10 dns:53/udp dns-tcp:53
  dns:53/udp,dns-tcp:53 10.244.1.8@n1
shop cluster=10.96.0.20,fd00:96::20 80@30081 lb=192.0.2.1,2001:db8::1 external=192.0.2.9 ranges=198.51.100.0/24,203.0.113.7/32 local=external affinity=10800
  8080 10.244.1.5@n1 10.244.2.6@n2
  8080 fd00:244:2::6@n2
node-local cluster=10.96.0.30 80 local=internal
  8080 10.244.1.5@n1 10.244.2.6@n2
elsewhere cluster=10.96.0.31 80 local=internal
  8080 10.244.2.6@n2
signalling cluster=10.96.0.40 2905/sctp
  2905/sctp 10.244.2.7@n2
empty cluster=10.96.0.50 80`

func goldenRuleset(t *testing.T) *Ruleset {
	t.Helper()
	n := nodeN(1)
	n.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:96::/108")}
	return Plan(n, world(t, goldenWorld))
}

func TestGoldenRuleset(t *testing.T) { golden(t, "ruleset.nft", text(goldenRuleset(t))) }

// TestConstantRules: neither Services nor endpoints add a rule, only numbers of
// endpoints that no port had before.
func TestConstantRules(t *testing.T) {
	rules := func(services, endpoints int) int {
		_, n := Plan(nodeN(1), many(services, endpoints)).Counts()
		return n
	}
	if a, b := rules(1, 10), rules(1000, 10); a != b {
		t.Errorf("%d rules for one Service, %d for 1,000", a, b)
	}
	if a, b := rules(10, 3), rules(10, 300); a != b {
		t.Errorf("%d rules for 3 endpoints, %d for 300", a, b)
	}
}

// many are Services with endpoints on ten nodes.
func many(services, endpoints int) []Service {
	all := make([]Service, services)
	for i := range all {
		all[i] = Service{
			Name: Name{"default", fmt.Sprintf("s%05d", i)}, Ports: []Port{{"http", TCP, 80, 0}},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
		}
		slice := Slice{Ports: []SlicePort{{"http", TCP, 8080}}}
		for j := range endpoints {
			n := i*endpoints + j
			slice.Endpoints = append(slice.Endpoints, Endpoint{Address: netip.AddrFrom4([4]byte{10, byte(128 + n>>16), byte(n >> 8), byte(n)}), Node: fmt.Sprintf("n%d", n%10), Ready: true, Serving: true})
		}
		all[i].Slices = []Slice{slice}
	}
	return all
}

// TestLookup: what is looked up is what is listed, and as many.
func TestLookup(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		for _, table := range Plan(nodeN(1), randomServices(random, 12)).tables() {
			for _, s := range table.Sets {
				if s.Elements == nil {
					continue
				}
				seen := map[string]bool{}
				s.Elements.All(func(e nft.Element) bool {
					if seen[e.Key] {
						t.Errorf("%s is listed twice in %s", s.Text(e), s.Name)
					}
					seen[e.Key] = true
					if found, is := s.Elements.Find(e.Key); !is || found != e {
						t.Errorf("%s of %s is looked up as %s, %t", s.Text(e), s.Name, s.Text(found), is)
					}
					return true
				})
				if n := s.Elements.Len(); n != len(seen) {
					t.Errorf("%s has %d elements and lists %d", s.Name, n, len(seen))
				}
			}
		}
	}
}

// randomServices are Services that collide here and there.
func randomServices(r *rand.Rand, most int) []Service {
	var all []Service
	for i := range most {
		if r.IntN(3) > 0 {
			all = append(all, randomService(r, i))
		}
	}
	return all
}

func randomService(r *rand.Rand, number int) Service {
	maybe := func() bool { return r.IntN(4) == 0 }
	s := Service{Name: Name{"default", fmt.Sprintf("s%d", number)}, Created: time.Unix(int64(r.IntN(3)), 0)}
	s.ClusterIPs = append(s.ClusterIPs, netip.AddrFrom4([4]byte{10, 96, 0, byte(number)}))
	if maybe() {
		s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(fmt.Sprintf("fd00:96::%d", number)))
	}
	for i := range 1 + r.IntN(2) {
		p := Port{Name: fmt.Sprintf("p%d", i), Protocol: protocols[r.IntN(3)], Port: uint16(80 + i)}
		if maybe() {
			p.NodePort = uint16(30000 + r.IntN(8))
		}
		s.Ports = append(s.Ports, p)
	}
	shared := addresses([]string{"192.0.2.1", "192.0.2.2", "10.96.0.3", "172.30.0.1", "2001:db8::1"})
	pick := func() []netip.Addr {
		if !maybe() {
			return nil
		}
		return []netip.Addr{shared[r.IntN(len(shared))]}
	}
	s.ExternalIPs, s.LoadBalancerIPs = pick(), pick()
	if maybe() {
		s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.51.100.0/25"), netip.MustParsePrefix("2001:db8::/32")}[:1+r.IntN(3)]
	}
	s.InternalLocal, s.ExternalLocal = maybe(), maybe()
	if maybe() {
		s.HealthCheckPort = 31000
	}
	if maybe() {
		s.Affinity = time.Duration(60*(1+r.IntN(2))) * time.Second
	}
	for i := range r.IntN(3) {
		s.Slices = append(s.Slices, randomSlice(r, &s, fmt.Sprint(i)))
	}
	return s
}

func randomSlice(r *rand.Rand, s *Service, name string) Slice {
	slice := Slice{Name: name}
	for _, p := range s.Ports {
		slice.Ports = append(slice.Ports, SlicePort{p.Name, p.Protocol, uint16(8080 + r.IntN(2))})
	}
	ipv6 := r.IntN(4) == 0
	for range r.IntN(5) {
		n, host := 1+r.IntN(3), r.IntN(6)
		e := Endpoint{Node: fmt.Sprintf("n%d", n), Address: netip.AddrFrom4([4]byte{10, 244, byte(n), byte(host)})}
		if ipv6 {
			e.Address = netip.MustParseAddr(fmt.Sprintf("fd00:244:%d::%d", n, host))
		}
		switch r.IntN(5) {
		case 0:
			e.Serving, e.Terminating = true, true
		case 1:
		default:
			e.Ready, e.Serving = true, true
		}
		if r.IntN(3) == 0 {
			e.Hints = &Hints{Zones: []string{string(rune('a' + r.IntN(2)))}}
		}
		slice.Endpoints = append(slice.Endpoints, e)
	}
	slice.sort()
	return slice
}

// TestRandomChanges goes through random changes, with what the keeper is told of each,
// and compares with a fresh start.
func TestRandomChanges(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			testRandomChanges(t, rand.New(rand.NewPCG(seed, 7)), 60)
		})
	}
}

func testRandomChanges(t *testing.T, r *rand.Rand, steps int) {
	node := nodeN(1)
	services := map[Name]Service{}
	p := NewPlanner(node)
	p.Ruleset().take()
	held := contentOfTables(p.Ruleset().tables())
	for step := range steps {
		for range 1 + r.IntN(3) {
			s := randomService(r, r.IntN(10))
			switch old, known := services[s.Name]; {
			case known && r.IntN(3) == 0:
				delete(services, s.Name)
				p.Delete(s.Name)
			case known && r.IntN(2) == 0:
				// Only the endpoints change.
				s = edited(r, old)
				fallthrough
			default:
				services[s.Name] = s
				p.Set(s)
			}
		}
		switch r.IntN(15) {
		case 0:
			node = nodeN(1 + r.IntN(2))
			p.SetNode(node)
		case 2:
			node.PodCIDRs = node.PodCIDRs[:1] // IPv4 only
			node.Addresses = node.Addresses[:1]
			node.NodePortAddresses = node.Addresses
			p.SetNode(node)
		}
		d := p.Ruleset().take().since(p.Ruleset())
		now := contentOfTables(p.Ruleset().tables())
		held.apply(t, d.tables, now)
		if got, want := held.lines(), now.lines(); got != want {
			t.Fatalf("step %d: what is told leads to what is not wanted:\n%s", step, differences(got, want))
		}
		if step%5 != 4 {
			continue
		}
		anew := NewPlanner(node)
		for _, s := range services {
			anew.Set(s)
		}
		if got, want := plannedText(p), plannedText(anew); got != want {
			t.Fatalf("step %d: planned is what a fresh start would not:\n%s", step, differences(got, want))
		}
		fresh := contentOfTables(anew.Ruleset().tables())
		if got, want := renumbered(t, held.lines()), renumbered(t, fresh.lines()); got != want {
			t.Fatalf("step %d: got what a fresh start would not:\n%s", step, differences(got, want))
		}
	}
}

// apply makes the changes that a keeper would, as strictly as the kernel; of tables that
// come and go, chains, and sets of prefixes it takes what is wanted now.
func (c content) apply(t *testing.T, deltas []nft.Delta, now content) {
	t.Helper()
	for id, table := range now {
		if c[id] == nil {
			c[id] = table
			deltas = slices.DeleteFunc(slices.Clone(deltas), func(d nft.Delta) bool { return d.Table == id })
		}
		c[id].chains, c[id].shapes = table.chains, table.shapes
		for _, prefixes := range []setID{setOwn, setServiceCIDRs} {
			name := prefixes.declared(ipv4).Name
			c[id].sets[name] = table.sets[name]
		}
	}
	for id := range c {
		if now[id] == nil {
			delete(c, id)
		}
	}
	for _, d := range deltas {
		if c[d.Table] == nil {
			continue
		}
		set := c[d.Table].sets[d.Set]
		for _, e := range d.Deleted {
			if set[e.Key] != e {
				t.Fatalf("%s of %s is to be deleted, and is not there", c[d.Table].shapes[d.Set].Text(e), d.Set)
			}
			delete(set, e.Key)
		}
		for _, e := range d.Added {
			if _, is := set[e.Key]; is {
				t.Fatalf("%s of %s is to be added, and is there", c[d.Table].shapes[d.Set].Text(e), d.Set)
			}
			set[e.Key] = e
		}
	}
}

// differences are the lines that only one text has.
func differences(got, want string) string {
	var b strings.Builder
	for l := range strings.Lines(got) {
		if !strings.Contains(want, l) {
			b.WriteString("got  " + l)
		}
	}
	for l := range strings.Lines(want) {
		if !strings.Contains(got, l) {
			b.WriteString("want " + l)
		}
	}
	return b.String()
}

// TestConflicts: who has a front that several claim, in whatever order they come.
func TestConflicts(t *testing.T) {
	services := world(t, `
old cluster=10.96.0.1 80 external=192.0.2.1 created=1
young cluster=10.96.0.2 80 external=192.0.2.1,10.96.0.1 created=2
balanced cluster=10.96.0.3 80 lb=192.0.2.1 created=3`)
	const want = "10.96.0.1 . tcp . 80: default/old (ClusterIP), not default/young (external IP); " +
		"192.0.2.1 . tcp . 80: default/balanced (load-balancer IP), not default/old (external IP), not default/young (external IP); "
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		p := NewPlanner(nodeN(1))
		for range 3 {
			for _, i := range r.Perm(len(services)) {
				p.Set(services[i])
				if r.IntN(3) == 0 {
					p.Delete(services[r.IntN(len(services))].Name)
				}
			}
		}
		for _, s := range services {
			p.Set(s)
		}
		if got := conflictText(p.Conflicts()); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

func conflictText(all []Conflict) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "%s: %s (%s)", c.Front, c.Holder.Name, c.Holder.Kind)
		for _, l := range c.Losers {
			fmt.Fprintf(&b, ", not %s (%s)", l.Name, l.Kind)
		}
		b.WriteString("; ")
	}
	return b.String()
}

// TestAffinityMarks: marks do not depend on the order, are never shared, and leave
// the bits of others alone.
func TestAffinityMarks(t *testing.T) {
	const n = 3000
	services := many(n, 0)
	for i := range services {
		services[i].Affinity = time.Minute
	}
	p := NewPlanner(nodeN(1))
	for _, i := range rand.New(rand.NewPCG(5, 6)).Perm(n) {
		if i%10 == 0 {
			p.Set(services[i])
		}
	}
	for _, i := range []int{10, 20, 30} {
		p.Delete(services[i].Name)
	}
	seen := map[uint32]bool{}
	for name, id := range p.ids {
		if seen[id] || id&0xf0000000 != 0x70000000 || id&0xf000 != 0 {
			t.Errorf("%s has mark %08x", name, id)
		}
		seen[id] = true
	}
	if len(seen) != n/10-3 {
		t.Errorf("%d marks", len(seen))
	}
	// Two names that come to the same: the first keeps it.
	all := map[uint32]PortName{}
	for i := range 20000 {
		name := PortName{Name{"x", fmt.Sprint(i)}, "", TCP}
		id := affinityID(name, 0)
		other, taken := all[id]
		all[id] = name
		if !taken {
			continue
		}
		q := NewPlanner(nodeN(1))
		for _, both := range []PortName{other, name} {
			q.Set(Service{Name: both.Service, Affinity: time.Minute, Ports: []Port{{"", TCP, 80, 0}}, ClusterIPs: addresses([]string{"10.96.0.1"})})
		}
		if q.ids[other] == q.ids[name] || q.ids[other] != id && q.ids[name] != id {
			t.Errorf("%s has %08x, %s has %08x", other, q.ids[other], name, q.ids[name])
		}
		return
	}
	t.Error("no two names came to the same mark")
}

// TestSmallTransaction: one endpoint more touches what that endpoint touches.
func TestSmallTransaction(t *testing.T) {
	p := NewPlanner(nodeN(1))
	for _, s := range many(200, 3) {
		p.Set(s)
	}
	p.Ruleset().take()
	s := many(200, 3)[7]
	s.Slices[0].Endpoints = append(s.Slices[0].Endpoints, Endpoint{Address: netip.MustParseAddr("10.250.0.1"), Ready: true})
	p.Set(s)
	var got []string
	for _, d := range p.Ruleset().take().since(p.Ruleset()).tables {
		tables := p.Ruleset().tables()
		set := tables[0].Sets[slices.IndexFunc(tables[0].Sets, func(s nft.Set) bool { return s.Name == d.Set })]
		for _, e := range d.Deleted {
			got = append(got, fmt.Sprintf("- %s %s { %s }", d.Table, d.Set, set.Text(e)))
		}
		for _, e := range d.Added {
			got = append(got, fmt.Sprintf("+ %s %s { %s }", d.Table, d.Set, set.Text(e)))
		}
	}
	slices.Sort(got)
	const want = `+ ip flatnet-services endpoints-tcp { 10.96.0.7 . 80 . 3 : 10.250.0.1 . 8080 }
+ ip flatnet-services services { 10.96.0.7 . tcp . 80 comment "default/s00007:http" : goto lb-tcp-4 }
- ip flatnet-services services { 10.96.0.7 . tcp . 80 comment "default/s00007:http" : goto lb-tcp-3 }`
	if strings.Join(got, "\n") != want {
		t.Errorf("changes are\n%s", strings.Join(got, "\n"))
	}
	if d := p.Ruleset().take().since(p.Ruleset()); len(d.tables) > 0 {
		t.Errorf("without a change: %v", d)
	}
}
