package service

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// tracer follows the first packet of a connection through the text of the rules, as
// nft would be given them. Of what is picked at random it follows every case.
type tracer struct {
	t       testing.TB
	node    Node
	tables  content
	clients map[string]string // what maps of affinity remember
}

// newTracer is for a ruleset that was made from nothing.
func newTracer(t testing.TB, want *Ruleset) *tracer {
	return &tracer{t: t, node: want.node, tables: contentOfTables(want.tables()), clients: map[string]string{}}
}

// packet is what the rules look at.
type packet struct {
	source      netip.Addr
	destination netip.AddrPort
	protocol    Protocol
	original    netip.AddrPort // destination before translation
	translated  bool
	mark        string
	end         string // where it ended, if it did
	choice      int    // which of the random cases to follow
	choices     int    // how many there were
}

// trace says what becomes of a packet: "refused", "dropped", or where it is
// delivered and what source is seen there. It sets out from this node if the
// source is one of the node's addresses or local is set.
func (tr *tracer) trace(source, destination string, protocol Protocol, local bool) string {
	tr.t.Helper()
	from, to := netip.MustParseAddr(source), netip.MustParseAddrPort(destination)
	local = local || slices.Contains(tr.node.Addresses, from)
	ends := map[string]bool{}
	remembered := tr.clients
	defer func() { tr.clients = remembered }()
	for choice := 0; ; choice++ {
		p := &packet{source: from, destination: to, original: to, protocol: protocol, choice: choice}
		tr.clients = maps.Clone(remembered)
		tr.follow(p, local)
		ends[p.end] = true
		if choice+1 >= p.choices {
			break
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(ends)), " | ")
}

func (tr *tracer) follow(p *packet, local bool) {
	first := "prerouting"
	if local {
		first = "output"
	}
	tr.chain(p, first, local)
	if p.end != "" {
		return
	}
	before := p.source
	here := slices.Contains(tr.node.Addresses, p.destination.Addr())
	if here && !local {
		tr.chain(p, "input", local)
	} else {
		tr.chain(p, "postrouting", local)
	}
	if p.end != "" {
		return
	}
	seen := p.source.String()
	if p.source == before {
		seen = "kept"
	}
	p.end = fmt.Sprintf("%s source %s", p.destination, seen)
	if !p.translated {
		p.end = "untouched " + p.end
	}
}

func (tr *tracer) table(p *packet) (*contentOf, string) {
	f := familyOf(p.destination.Addr())
	return tr.tables[f.table()], f.name()
}

// chain follows a packet through a chain. It is true where the packet is done with
// this base chain.
func (tr *tracer) chain(p *packet, name string, local bool) bool {
	table, _ := tr.table(p)
	if table == nil {
		return false
	}
	i := slices.IndexFunc(table.chains, func(c nft.Chain) bool { return c.Name == name })
	if i < 0 {
		tr.t.Fatalf("there is no chain %s", name)
	}
	for _, rule := range table.chains[i].Rules {
		done, leave := tr.rule(p, rule, local)
		if done {
			return true
		}
		if leave {
			return false
		}
	}
	return false
}

// rule follows one rule. Done is the end of the base chain, leave that of the chain.
func (tr *tracer) rule(p *packet, rule string, local bool) (done, leave bool) {
	words := strings.Fields(rule)
	next := func() string {
		if len(words) == 0 {
			tr.t.Fatalf("rule ends too early: %s", rule)
		}
		w := words[0]
		words = words[1:]
		return w
	}
	eat := func(text string) bool {
		fields := strings.Fields(text)
		if len(words) >= len(fields) && slices.Equal(words[:len(fields)], fields) {
			words = words[len(fields):]
			return true
		}
		return false
	}
	verdict := func(v string) (done, leave bool) {
		switch action, chain, _ := strings.Cut(v, " "); action {
		case "goto":
			return tr.chain(p, chain, local), true
		case "jump":
			return tr.chain(p, chain, local), false
		case "drop":
			p.end = "dropped"
			return true, true
		}
		tr.t.Fatalf("unknown verdict %q", v)
		return
	}
	_, ip := tr.table(p)
	for len(words) > 0 {
		switch {
		case eat("drop"):
			return verdict("drop")
		case eat("return"):
			return false, true
		case eat("goto"):
			return verdict("goto " + next())
		case eat("jump"):
			if done, _ := verdict("jump " + next()); done {
				return true, true
			}
		case eat("reject with tcp reset"), eat("reject"):
			p.end = "refused"
			return true, true
		case eat("masquerade fully-random"):
			p.source = tr.node.Addresses[familyOf(p.source)]
			return true, true
		case eat("ct status dnat"):
			if !p.translated {
				return false, false
			}
		case eat("fib saddr type local"):
			if !local {
				return false, false
			}
		case eat("ct mark set"):
			key := tr.key(p, &words)
			eat("map")
			v, found := tr.element(p, next(), key)
			if !found {
				return false, false
			}
			p.mark = v
		case eat("dnat " + ip + " to"):
			key := tr.key(p, &words)
			eat("map")
			v, found := tr.element(p, next(), key)
			if !found {
				return false, false
			}
			address, port, _ := strings.Cut(v, " . ")
			n, err := strconv.Atoi(port)
			if err != nil {
				tr.t.Fatalf("%s: %v", rule, err)
			}
			p.destination, p.translated = netip.AddrPortFrom(netip.MustParseAddr(address), uint16(n)), true
			return true, true
		case eat("update"):
			name := next()
			next() // {
			key := tr.key(p, &words)
			next()
			next() // timeout
			next() // :
			tr.clients[name+" "+strings.Join(key, " . ")] = strings.Join(tr.key(p, &words), " . ")
			next() // }
		default:
			key := tr.key(p, &words)
			switch {
			case eat("vmap"):
				v, found := tr.element(p, next(), key)
				if !found {
					return false, false
				}
				if done, leave := verdict(v); done || leave {
					return done, leave
				}
			case eat("!="):
				if _, found := tr.element(p, next(), key); found {
					return false, false
				}
			case len(words) > 0 && strings.HasPrefix(words[0], "@"):
				if _, found := tr.element(p, next(), key); !found {
					return false, false
				}
			default: // a constant
				if next() != key[0] {
					return false, false
				}
			}
		}
	}
	return false, false
}

// key reads the expression at the beginning of words: fields with dots between.
func (tr *tracer) key(p *packet, words *[]string) []string {
	_, ip := tr.table(p)
	var key []string
	fields := []struct {
		text  string
		value func() string
	}{
		{"ct original " + ip + " daddr", func() string { return p.original.Addr().String() }},
		{"ct original proto-dst", func() string { return strconv.Itoa(int(p.original.Port())) }},
		{"ct mark", func() string { return p.mark }},
		{ip + " saddr", func() string { return p.source.String() }},
		{ip + " daddr", func() string { return p.destination.Addr().String() }},
		{"th dport", func() string { return strconv.Itoa(int(p.destination.Port())) }},
		{p.protocol.String() + " dport", func() string { return strconv.Itoa(int(p.destination.Port())) }},
		{"meta l4proto", func() string { return p.protocol.String() }},
		{"numgen random mod", func() string {
			n, err := strconv.Atoi((*words)[0])
			if err != nil {
				tr.t.Fatal(err)
			}
			*words = (*words)[1:]
			offset := 0
			if (*words)[0] == "offset" {
				offset, _ = strconv.Atoi((*words)[1])
				*words = (*words)[2:]
			}
			p.choices = n
			return strconv.Itoa(offset + p.choice%n)
		}},
	}
	for {
		at := slices.IndexFunc(fields, func(f struct {
			text  string
			value func() string
		}) bool {
			want := strings.Fields(f.text)
			return len(*words) >= len(want) && slices.Equal((*words)[:len(want)], want)
		})
		if at < 0 {
			tr.t.Fatalf("unknown expression %q", strings.Join(*words, " "))
		}
		*words = (*words)[len(strings.Fields(fields[at].text)):]
		key = append(key, fields[at].value())
		if len(*words) == 0 || (*words)[0] != "." {
			return key
		}
		*words = (*words)[1:]
	}
}

// element looks a key up in a set or map.
func (tr *tracer) element(p *packet, name string, key []string) (string, bool) {
	table, _ := tr.table(p)
	if v, remembered := tr.clients[name+" "+strings.Join(key, " . ")]; remembered {
		return v, true
	}
	name = strings.TrimPrefix(name, "@")
	if table.sets[name] == nil {
		tr.t.Fatalf("there is no set %s", name)
	}
	for _, e := range table.elements(name) {
		at, value, _ := strings.Cut(e, " : ")
		at, _, _ = strings.Cut(at, " comment ")
		fields, last := strings.Split(at, " . "), len(key)-1
		if len(fields) == len(key) && slices.Equal(fields[:last], key[:last]) && within(fields[last], key[last]) {
			return value, true
		}
	}
	return "", false
}

// within reports whether a value is an element's, or in its prefix.
func within(element, value string) bool {
	if p, err := netip.ParsePrefix(element); err == nil {
		return p.Contains(netip.MustParseAddr(value))
	}
	return element == value
}

// The tests' cluster: n1 is where the rules are; there is the same in IPv6.
const (
	ownPod    = "10.244.1.9"
	remotePod = "10.244.2.9"
	thisNode  = "172.30.0.1"
	client    = "198.51.100.7"
)

func TestTrace(t *testing.T) {
	const everything = `web cluster=10.96.0.1,fd00:96::1 http:80@30080 lb=192.0.2.1,2001:db8::1 external=192.0.2.9`
	const two = "\n  http:8080 10.244.1.5@n1 10.244.2.6@n2"
	const dual = two + "\n  http:8080 fd00:244:1::5@n1 fd00:244:2::6@n2"
	const remote = "\n  http:8080 10.244.2.6@n2"
	type step struct{ from, to, want string }
	for _, test := range []struct {
		name, services string
		steps          []step
	}{
		{"ClusterIP", "web cluster=10.96.0.1 http:80" + two, []step{
			{ownPod, "10.96.0.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"},
			{thisNode, "10.96.0.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"},
			{"10.244.1.5", "10.96.0.1:80", "10.244.1.5:8080 source 172.30.0.1 | 10.244.2.6:8080 source kept"},
			// Who routes ClusterIPs here from outside.
			{client, "10.96.0.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{ownPod, "10.96.0.1:81", "refused"},
			{ownPod, "10.96.0.2:80", "untouched 10.96.0.2:80 source kept"},
			{ownPod, "10.244.2.6:80", "untouched 10.244.2.6:80 source kept"},
		}},
		{"external addresses", everything + dual, []step{
			{client, "172.30.0.1:30080", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{client, "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{client, "192.0.2.9:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{remotePod, "172.30.0.1:30080", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{ownPod, "172.30.0.1:30080", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"},
			{"10.244.1.5", "192.0.2.1:80", "10.244.1.5:8080 source 172.30.0.1 | 10.244.2.6:8080 source kept"},
			{thisNode, "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"},
			{client, "172.30.0.1:80", "untouched 172.30.0.1:80 source kept"},
			{client, "192.0.2.1:81", "untouched 192.0.2.1:81 source kept"},
			{"2001:db8::7", "[2001:db8::1]:80", "[fd00:244:1::5]:8080 source kept | [fd00:244:2::6]:8080 source fd00:30::1"},
			{"fd00:244:1::9", "[fd00:96::1]:80", "[fd00:244:1::5]:8080 source kept | [fd00:244:2::6]:8080 source kept"},
			{"2001:db8::7", "[fd00:30::1]:30080", "[fd00:244:1::5]:8080 source kept | [fd00:244:2::6]:8080 source fd00:30::1"},
		}},
		{"one of the node's own addresses that nobody else knows", everything + two, []step{
			{"local 192.0.2.1", "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
		}},
		{"no endpoints", everything, []step{
			{ownPod, "10.96.0.1:80", "refused"}, {thisNode, "10.96.0.1:80", "refused"}, {client, "172.30.0.1:30080", "refused"},
			{client, "192.0.2.1:80", "refused"}, {client, "[fd00:30::1]:30080", "refused"}, {thisNode, "172.30.0.1:30080", "refused"},
		}},
		{"external policy Local", everything + " local=external" + two, []step{
			{client, "172.30.0.1:30080", "10.244.1.5:8080 source kept"}, {client, "192.0.2.1:80", "10.244.1.5:8080 source kept"},
			{remotePod, "172.30.0.1:30080", "10.244.1.5:8080 source kept"},
			// What is inside has gone out and come back in, as it were.
			{ownPod, "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"},
			{thisNode, "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"},
			{"local 192.0.2.1", "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{ownPod, "10.96.0.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"},
		}},
		{"external policy Local, and nothing local", everything + " local=external" + remote, []step{
			{client, "172.30.0.1:30080", "dropped"}, {client, "192.0.2.1:80", "dropped"}, {remotePod, "172.30.0.1:30080", "dropped"},
			{ownPod, "172.30.0.1:30080", "10.244.2.6:8080 source kept"}, {thisNode, "172.30.0.1:30080", "10.244.2.6:8080 source kept"},
		}},
		{"external policy Local, and nothing anywhere", everything + " local=external", []step{
			{client, "172.30.0.1:30080", "refused"}, {ownPod, "172.30.0.1:30080", "refused"},
		}},
		{"external policy Local, and the local one terminates", everything + " local=external\n  http:8080 10.244.1.5@n1!terminating 10.244.2.6@n2", []step{
			{client, "172.30.0.1:30080", "10.244.1.5:8080 source kept"}, {ownPod, "172.30.0.1:30080", "10.244.2.6:8080 source kept"},
		}},
		{"internal policy Local", everything + " local=internal" + two, []step{
			{ownPod, "10.96.0.1:80", "10.244.1.5:8080 source kept"}, {thisNode, "10.96.0.1:80", "10.244.1.5:8080 source kept"},
			{"10.244.1.5", "10.96.0.1:80", "10.244.1.5:8080 source 172.30.0.1"},
			{client, "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
		}},
		{"internal policy Local, and nothing local", everything + " local=internal" + remote, []step{
			{ownPod, "10.96.0.1:80", "dropped"}, {thisNode, "10.96.0.1:80", "dropped"}, {client, "172.30.0.1:30080", "10.244.2.6:8080 source 172.30.0.1"},
		}},
		{"internal policy Local, and nothing anywhere", everything + " local=internal", []step{{ownPod, "10.96.0.1:80", "refused"}}},
		{"source ranges", everything + " ranges=198.51.100.0/24,10.244.0.0/16,198.51.100.128/25" + two, []step{
			{client, "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{"198.51.100.200", "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{"203.0.113.7", "192.0.2.1:80", "dropped"}, {thisNode, "192.0.2.1:80", "dropped"}, {"local 192.0.2.1", "192.0.2.1:80", "dropped"},
			{ownPod, "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"},
			// Only the load balancer's addresses are meant.
			{"203.0.113.7", "172.30.0.1:30080", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			{"203.0.113.7", "192.0.2.9:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
			// As with kube-proxy, a family that the ranges do not name has none.
			{"2001:db8::7", "[2001:db8::1]:80", "refused"},
		}},
		{"source ranges that the node is in", everything + " ranges=172.30.0.0/16" + two, []step{
			{"local 192.0.2.1", "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"}, {client, "192.0.2.1:80", "dropped"},
		}},
		{"source ranges that are all", everything + " ranges=198.51.100.0/24,0.0.0.0/0" + two, []step{
			{"203.0.113.7", "192.0.2.1:80", "10.244.1.5:8080 source kept | 10.244.2.6:8080 source 172.30.0.1"},
		}},
		{"source ranges and policy Local", everything + " ranges=198.51.100.0/24 local=external" + two, []step{
			{client, "192.0.2.1:80", "10.244.1.5:8080 source kept"}, {"203.0.113.7", "192.0.2.1:80", "dropped"},
		}},
		{"source ranges without endpoints", everything + " ranges=198.51.100.0/24", []step{
			{client, "192.0.2.1:80", "refused"}, {"203.0.113.7", "192.0.2.1:80", "dropped"},
		}},
		{"an endpoint outside of the cluster", "web cluster=10.96.0.1 http:80\n  http:8080 203.0.113.50", []step{
			// Package masquerade translates this, as anything that leaves the cluster.
			{ownPod, "10.96.0.1:80", "203.0.113.50:8080 source kept"}, {client, "10.96.0.1:80", "203.0.113.50:8080 source 172.30.0.1"},
		}},
		{"endpoints of host networks", "web cluster=10.96.0.1 http:80@30080\n  http:8080 172.30.0.1@n1 172.30.0.2@n2", []step{
			{ownPod, "10.96.0.1:80", "172.30.0.1:8080 source kept | 172.30.0.2:8080 source kept"},
			{thisNode, "10.96.0.1:80", "172.30.0.1:8080 source kept | 172.30.0.2:8080 source kept"},
			{client, "172.30.0.1:30080", "172.30.0.1:8080 source kept | 172.30.0.2:8080 source 172.30.0.1"},
		}},
		{"an external IP that is another Service's ClusterIP", "thief cluster=10.96.0.7 http:80 external=10.96.0.1 created=1\n  http:1 10.244.2.66@n2\nweb cluster=10.96.0.1 http:80 created=2" + remote, []step{
			{ownPod, "10.96.0.1:80", "10.244.2.6:8080 source kept"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := newTracer(t, Plan(nodeN(1), world(t, test.services)))
			for _, s := range test.steps {
				from, local := strings.CutPrefix(s.from, "local ")
				if got := tr.trace(from, s.to, TCP, local); got != s.want {
					t.Errorf("%s → %s\ngot  %s\nwant %s", s.from, s.to, got, s.want)
				}
			}
		})
	}
}

func TestTraceProtocols(t *testing.T) {
	tr := newTracer(t, Plan(nodeN(1), world(t, "dns cluster=10.96.0.10 dns:53/udp dns-tcp:53 x:53/sctp\n  dns:5353/udp,dns-tcp:5354,x:5355/sctp 10.244.2.6@n2")))
	for protocol, want := range map[Protocol]string{UDP: "10.244.2.6:5353 source kept", TCP: "10.244.2.6:5354 source kept", SCTP: "10.244.2.6:5355 source kept"} {
		if got := tr.trace(ownPod, "10.96.0.10:53", protocol, false); got != want {
			t.Errorf("%s: got %s, want %s", protocol, got, want)
		}
	}
}

func TestTraceAffinity(t *testing.T) {
	const services = "web cluster=10.96.0.1,fd00:96::1 http:80@30080 other:81 affinity=60\n  http:8080,other:81 10.244.1.5@n1 10.244.2.6@n2 10.244.3.7@n3 172.30.0.1@n1\n  http:8080 fd00:244:1::5@n1 fd00:244:2::6@n2"
	tr := newTracer(t, Plan(nodeN(1), world(t, services)))
	for _, source := range []string{ownPod, "10.244.1.10", client, "fd00:244:1::9"} {
		to, nodePort := "10.96.0.1:80", "172.30.0.1:30080"
		if strings.Contains(source, "::") {
			to, nodePort = "[fd00:96::1]:80", "[fd00:30::1]:30080"
		}
		// One connection, and then all others of the client.
		p := &packet{source: netip.MustParseAddr(source), destination: netip.MustParseAddrPort(to), protocol: TCP, choice: 1}
		p.original = p.destination
		tr.follow(p, false)
		first, _, _ := strings.Cut(p.end, " ")
		for _, again := range []string{to, nodePort} {
			got := tr.trace(source, again, TCP, false)
			if end, _, _ := strings.Cut(got, " "); end != first || strings.Contains(got, "|") {
				t.Errorf("%s went to %s, and then to %s by %s", source, first, got, again)
			}
		}
	}
	// Another client, and another port.
	if got := tr.trace("10.244.1.11", "10.96.0.1:80", TCP, false); strings.Count(got, "|") != 3 {
		t.Errorf("a new client goes to %s", got)
	}
	if got := tr.trace(ownPod, "10.96.0.1:81", TCP, false); strings.Count(got, "|") != 3 {
		t.Errorf("another port goes to %s", got)
	}
}
