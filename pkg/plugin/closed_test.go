package plugin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// ofProd are the arguments for a pod of the namespace that prodIsClosed closes.
const ofProd = "K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web;K8S_POD_UID=1234"

var prodIsClosed = closed.List{Namespaces: map[string][]string{
	"prod": {closed.Ingress, closed.Egress}, "in": {closed.Ingress}, "out": {closed.Egress}, "free": {},
}}

// write makes a list the one that the network goes by.
func (s *stage) write(l closed.List) {
	s.t.Helper()
	path, known := s.config["policies"].(string)
	if !known {
		path = filepath.Join(s.t.TempDir(), "policies.json")
		s.config["policies"] = path
	}
	if err := closed.Write(path, l); err != nil {
		s.t.Fatal(err)
	}
}

// of are the arguments for a pod of a namespace.
func of(namespace string) string { return "K8S_POD_NAMESPACE=" + namespace + ";K8S_POD_NAME=web" }

// addOf attaches a pod of a Kubernetes namespace.
func (s *stage) addOf(namespace, container string, pod *netlab.Namespace) {
	s.t.Helper()
	if _, err := s.run(call{verb: "ADD", container: container, netns: pod.Path, args: of(namespace)}); err != nil {
		s.t.Fatalf("ADD %s: %v", container, err)
	}
}

// open opens addresses, as flatnetd does.
func (s *stage) open(addresses ...string) {
	s.t.Helper()
	err := s.node.Do(func() error {
		for _, a := range addresses {
			if err := (&closed.Table{}).Open(address(a)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// checkClosed compares what is closed.
func (s *stage) checkClosed(when string, want ...string) {
	s.t.Helper()
	var got []string
	err := s.node.Do(func() error {
		all, err := (&closed.Table{}).Addresses()
		for _, a := range all {
			got = append(got, a.String())
		}
		return err
	})
	if err != nil || !slices.Equal(got, want) {
		s.t.Errorf("%s: closed are %v, %v; want %v", when, got, err, want)
	}
}

// runAgent has the lock that flatnetd has while it runs.
func (s *stage) runAgent() (stop func()) {
	s.t.Helper()
	if err := os.MkdirAll(s.directory, 0o700); err != nil {
		s.t.Fatal(err)
	}
	file, err := os.OpenFile(netconf.AgentLock(s.directory), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		s.t.Fatal(err)
	}
	return func() { file.Close() }
}

// inbox takes datagrams to a port of a namespace's, whatever addresses that will have.
type inbox struct {
	*net.UDPConn
	port int
}

func newInbox(t *testing.T, at *netlab.Namespace) inbox {
	t.Helper()
	var i inbox
	err := at.Do(func() (err error) {
		i.UDPConn, err = net.ListenUDP("udp", &net.UDPAddr{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	i.port = i.LocalAddr().(*net.UDPAddr).Port
	return i
}

// next returns the text of the first datagram that has come.
func (i inbox) next(t *testing.T) string {
	t.Helper()
	if err := i.SetReadDeadline(time.Now().Add(pace.Far())); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 64)
	n, err := i.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n])
}

// tell sends a text in a datagram, from a socket of its own: a connection that begins.
// Whether there is a way is not asked.
func tell(from *netlab.Namespace, to string, port int, text string) {
	_ = from.Do(func() error {
		socket, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: address(to).AsSlice(), Port: port})
		if err != nil {
			return err
		}
		defer socket.Close()
		_, err = socket.Write([]byte(text))
		return err
	})
}

// Another pod calls the new one before each change that its ADD makes, and once it is
// made. Nothing of that arrives where policies are about the new pod's namespace;
// without such it does. Datagrams do not overtake each other on this way: the first
// to come is the first that was let through.
func TestPodIsClosedFromItsFirstPacket(t *testing.T) {
	for _, c := range []struct {
		namespace string
		free      bool
	}{{"prod", false}, {"in", false}, {"out", true}, {"free", true}, {"unknown", true}} {
		for _, to := range []string{"10.1.2.3", "fd00:1::3"} {
			t.Run(c.namespace+" "+to, func(t *testing.T) {
				s := newFullStage(t)
				other, pod := s.lab.Pod("other"), s.lab.Pod("pod")
				s.addOf("free", "other", other)
				box := newInbox(t, pod)
				_, err := s.run(call{verb: "ADD", container: "pod", netns: pod.Path, args: of(c.namespace), step: func(string) error {
					tell(other, to, box.port, "too early")
					return nil
				}})
				if err != nil {
					t.Fatal(err)
				}
				tell(other, to, box.port, "too early")
				s.open(to)
				tell(other, to, box.port, "opened")
				if got, want := box.next(t), map[bool]string{false: "opened", true: "too early"}[c.free]; got != want {
					t.Errorf("%q came first, want %q", got, want)
				}
			})
		}
	}
}

// A pod that is closed for what it sends reaches nobody until it is opened.
func TestPodIsClosedForWhatItSends(t *testing.T) {
	s := newFullStage(t)
	lan := s.lab.Segment("outside")
	outside := s.lab.Node("outside", lan.Port("172.30.5.2/24", "fd00:35::2/64"))
	s.node = s.lab.Node("closing", lan.Port("172.30.5.1/24", "fd00:35::1/64"))
	other, pod := s.lab.Pod("other"), s.lab.Pod("pod")
	s.addOf("free", "other", other)
	s.addOf("out", "pod", pod)
	pods, beyond := newInbox(t, other), newInbox(t, outside.Namespace)
	for own, to := range map[string][2]string{"10.1.2.3": {"10.1.2.2", "172.30.5.2"}, "fd00:1::3": {"fd00:1::2", "fd00:35::2"}} {
		for i, box := range []inbox{pods, beyond} {
			tell(pod, to[i], box.port, "too early")
		}
		s.open(own)
		for i, box := range []inbox{pods, beyond} {
			tell(pod, to[i], box.port, "opened")
			if got := box.next(t); got != "opened" {
				t.Errorf("%s got %q", to[i], got)
			}
		}
	}
}

// What the node sends on in somebody else's name, as IPVS does with what it has
// translated, gets no further than what it forwards; what it sends itself does, and what
// is for itself. All that is refused is counted.
func TestClosedPodAndWhatTheNodeSendsOn(t *testing.T) {
	s := newFullStage(t)
	lan := s.lab.Segment("outside")
	s.node = s.lab.Node("closing", lan.Port("172.30.5.1/24", "fd00:35::1/64"))
	other, in, out := s.lab.Pod("other"), s.lab.Pod("in"), s.lab.Pod("out")
	s.addOf("free", "other", other)
	s.addOf("in", "in", in)
	s.addOf("out", "out", out)
	boxes := map[*netlab.Namespace]inbox{}
	for _, at := range []*netlab.Namespace{other, in, s.node.Namespace} {
		boxes[at] = newInbox(t, at)
	}
	refused := func() (all map[string]uint64) {
		t.Helper()
		err := s.node.Do(func() (err error) {
			all, err = (&closed.Table{}).Refused()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, a := range []struct{ node, other, in, out string }{
		{"172.30.5.1", "10.1.2.2", "10.1.2.3", "10.1.2.4"}, {"fd00:35::1", "fd00:1::2", "fd00:1::3", "fd00:1::4"},
	} {
		before := refused()
		for _, c := range []struct {
			from, to string
			at       *netlab.Namespace
		}{{a.other, a.in, in}, {a.out, a.other, other}} {
			to := netip.AddrPortFrom(address(c.to), uint16(boxes[c.at].port))
			if err := s.node.SendAs(address(c.from), to, "sent on"); err != nil && !errors.Is(err, unix.EPERM) { // what the kernel says of a drop
				t.Fatal(err)
			}
			tell(s.node.Namespace, c.to, boxes[c.at].port, "own")
			if got := boxes[c.at].next(t); got != "own" {
				t.Errorf("%s got %q", c.to, got)
			}
		}
		tell(out, a.node, boxes[s.node.Namespace].port, "for the node")
		if got := boxes[s.node.Namespace].next(t); got != "for the node" {
			t.Errorf("the node got %q", got)
		}
		after := refused()
		if after[closed.Ingress] != before[closed.Ingress]+1 || after[closed.Egress] != before[closed.Egress]+1 {
			t.Errorf("refused were %v, and then %v", before, after)
		}
	}
}

// What a closed pod may begin gets its answers, and so does what may reach it. What
// the node itself asks it, passes.
func TestAnswersPass(t *testing.T) {
	s := newFullStage(t)
	other, in, out := s.lab.Pod("other"), s.lab.Pod("in"), s.lab.Pod("out")
	s.addOf("free", "other", other)
	s.addOf("in", "in", in)
	s.addOf("out", "out", out)
	for _, a := range [][3]string{{"10.1.2.2", "10.1.2.3", "10.1.2.4"}, {"fd00:1::2", "fd00:1::3", "fd00:1::4"}} {
		for _, c := range []struct {
			from, at *netlab.Namespace
			to       string
		}{{in, other, a[0]}, {other, out, a[2]}, {in, out, a[2]}, {s.node.Namespace, in, a[1]}, {s.node.Namespace, out, a[2]}} {
			if got := seen(t, c.from, c.at, netip.Addr{}, address(c.to)); got == "" {
				t.Errorf("%s does not answer %s", c.at.Name, c.from.Name)
			}
			if _, err := netlab.Transfer(c.from, c.at, address(c.to), 1<<20, pace.Far()); err != nil {
				t.Errorf("%s to %s over TCP: %v", c.from.Name, c.at.Name, err)
			}
		}
	}
	s.checkClosed("in the end", "10.1.2.3", "10.1.2.4", "fd00:1::3", "fd00:1::4")
}

// The record has what flatnetd goes by. CHECK and RESTORE take a pod as flatnetd left
// it, and a DEL takes its own addresses out, whatever became of the configuration and
// the record.
func TestClosedPodsAndTheirEnds(t *testing.T) {
	s := newFullStage(t)
	pods := map[string]*netlab.Namespace{}
	for _, name := range []string{"a", "b", "c", "d"} { // .2 to .5
		pods[name] = s.lab.Pod(name)
	}
	result, err := s.run(call{verb: "ADD", container: "a", netns: pods["a"].Path, args: ofProd})
	if err != nil {
		t.Fatal(err)
	}
	s.addOf("in", "b", pods["b"])
	s.addOf("in", "c", pods["c"])
	s.addOf("free", "d", pods["d"])
	all := []string{"10.1.2.2", "10.1.2.3", "10.1.2.4", "fd00:1::2", "fd00:1::3", "fd00:1::4"}
	s.checkClosed("ADD", all...)
	record, recorded := attachment.OpenDirectory(s.directory).Get(attachment.Key{Network: "net", ContainerID: "a", Interface: "eth0"})
	if !recorded || record.Pod != "prod/web" || record.UID != "1234" || !slices.Equal(record.Closed, []string{"ingress", "egress"}) {
		t.Errorf("recorded is %v: pod %s, UID %s, closed %v", recorded, record.Pod, record.UID, record.Closed)
	}
	checkA := call{verb: "CHECK", container: "a", netns: pods["a"].Path, config: map[string]any{"prevResult": result}}
	if _, err := s.run(checkA); err != nil {
		t.Errorf("CHECK of a closed pod: %v", err)
	}
	s.open("10.1.2.2", "fd00:1::2")
	if _, err := s.run(checkA); err != nil {
		t.Errorf("CHECK of an opened pod: %v", err)
	}
	if repairs := s.restore(); len(repairs) > 0 {
		t.Errorf("mended %v", repairs)
	}
	s.checkClosed("opening a", "10.1.2.3", "10.1.2.4", "fd00:1::3", "fd00:1::4")

	if _, err := s.run(call{verb: "DEL", container: "b", netns: pods["b"].Path, config: map[string]any{"policies": "spoiled"}}); err != nil {
		t.Error(err)
	}
	s.checkClosed("DEL of b", "10.1.2.4", "fd00:1::4")
	if err := os.RemoveAll(filepath.Join(s.directory, "attachments")); err != nil {
		t.Fatal(err)
	}
	s.mustDel("c", pods["c"].Path)
	s.checkClosed("DEL of c without its record")
	for _, name := range []string{"a", "d", "c"} {
		s.mustDel(name, pods[name].Path)
	}
	s.checkNothingLeft("DEL of all")
}

func TestGCOpensWhatIsGone(t *testing.T) {
	s := newFullStage(t)
	a, b := s.lab.Pod("a"), s.lab.Pod("b")
	s.addOf("prod", "a", a)
	s.addOf("prod", "b", b)
	keepB := map[string]any{"cni.dev/valid-attachments": []any{map[string]any{"containerID": "b", "ifname": "eth0"}}}
	if _, err := s.run(call{verb: "GC", config: keepB}); err != nil {
		t.Error(err)
	}
	s.checkClosed("GC that keeps b", "10.1.2.3", "fd00:1::3")
	if _, err := s.run(call{verb: "GC", config: map[string]any{"cni.dev/valid-attachments": []any{}}}); err != nil {
		t.Error(err)
	}
	s.checkNothingLeft("GC")
}

// What becomes of a pod where the agent does not run, or nobody knows what is closed,
// and what the log says.
func TestWithoutAgentOrList(t *testing.T) {
	list := func(withoutAgent string) *closed.List {
		l := prodIsClosed
		l.WithoutAgent = withoutAgent
		return &l
	}
	for _, c := range []struct {
		name      string
		list      *closed.List // nil for one that cannot be read
		agent     bool
		namespace string
		closed    []string
		log       string // "" where nothing is to be said
	}{
		{"agent", list(""), true, "prod", []string{"ingress", "egress"}, ""},
		{"agent, open", list(closed.BeOpen), true, "in", []string{"ingress"}, ""},
		{"no agent", list(""), false, "out", []string{"egress"}, "the pod stays closed until flatnetd runs"},
		{"no agent, closed", list(closed.StayClosed), false, "prod", []string{"ingress", "egress"}, "the pod stays closed until flatnetd runs"},
		{"no agent, open", list(closed.BeOpen), false, "prod", nil, "no flatnetd runs"},
		{"no agent, open, no policies", list(closed.BeOpen), false, "free", nil, ""},
		{"unreadable", nil, true, "free", []string{"ingress", "egress"}, "nobody knows which policies there are"},
		{"unreadable, no agent", nil, false, "free", []string{"ingress", "egress"}, "the pod stays closed until flatnetd runs"},
		{"unreadable, no namespace", nil, true, "", nil, ""},
		{"others", &closed.List{Others: []string{closed.Ingress}}, true, "any", []string{"ingress"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, "10.1.2.0/24")
			file := filepath.Join(t.TempDir(), "flatnet.log")
			s.config["logFile"], s.config["logLevel"] = file, "warn"
			if c.list == nil {
				s.config["policies"] = filepath.Join(t.TempDir(), "policies.json")
				if err := os.WriteFile(s.config["policies"].(string), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			} else {
				s.write(*c.list)
			}
			if c.agent {
				defer s.runAgent()()
			}
			args := of(c.namespace)
			if c.namespace == "" {
				args = ""
			}
			pod := s.lab.Pod("pod")
			if _, err := s.run(call{verb: "ADD", container: "pod", netns: pod.Path, args: args}); err != nil {
				t.Fatal(err)
			}
			record, _ := attachment.OpenDirectory(s.directory).Get(attachment.Key{Network: "net", ContainerID: "pod", Interface: "eth0"})
			if !slices.Equal(record.Closed, c.closed) {
				t.Errorf("recorded as closed: %v, want %v", record.Closed, c.closed)
			}
			if len(c.closed) > 0 {
				s.checkClosed("ADD", "10.1.2.2")
			} else {
				s.checkClosed("ADD")
			}
			log, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			switch said := string(log); {
			case c.log == "" && said != "":
				t.Errorf("log says %s", said)
			case c.log != "" && (!strings.Contains(said, c.log) || !strings.Contains(said, "pod="+c.namespace+"/web") || !strings.Contains(said, "level=WARN")):
				t.Errorf("log lacks %q, the pod's name or the level:\n%s", c.log, said)
			}
			s.mustDel("pod", pod.Path)
			s.checkNothingLeft("DEL")
		})
	}
}

// policyTable makes the part of the policies' table that the plugin writes to.
func (s *stage) policyTable() {
	s.t.Helper()
	s.nft(func(t *nft.Transaction) {
		t.AddTable(closed.PolicyTable, "")
		t.AddSet(closed.PolicyTable, closed.Evicted(false))
		t.AddSet(closed.PolicyTable, closed.Evicted(true))
	})
}

// nft runs a transaction in the node.
func (s *stage) nft(of func(*nft.Transaction)) {
	s.t.Helper()
	err := s.node.Do(func() error {
		c, err := nft.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		t := &nft.Transaction{}
		of(t)
		return c.Run(t)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// evicted returns the addresses that are.
func (s *stage) evicted() (all []string) {
	err := s.node.Do(func() error {
		c, err := nft.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		for _, ipv6 := range []bool{false, true} {
			err = errors.Join(err, c.Elements(closed.PolicyTable, closed.Evicted(ipv6), func(e nft.Element) {
				a, _ := netip.AddrFromSlice([]byte(e.Key))
				all = append(all, a.String())
			}))
		}
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	return all
}

// A pod's addresses are nobody's to the rules of policies before the pod has a wire,
// whatever its namespace, and where it is no pod of Kubernetes; but not where there are no
// policies. Without the rules there is nothing to do.
func TestAddressesAreEvicted(t *testing.T) {
	for _, c := range []struct {
		name, args   string
		list         *closed.List // nil for none
		there, wants bool
	}{
		{"closed", ofProd, &prodIsClosed, true, true},
		{"free", of("free"), &prodIsClosed, true, true},
		{"unknown", of("unknown"), &prodIsClosed, true, true},
		{"no pod", "", &prodIsClosed, true, true},
		{"closed, and no rules", ofProd, &prodIsClosed, false, false},
		{"free, and no rules", of("free"), &prodIsClosed, false, false},
		{"no policies", of("free"), &closed.List{Namespaces: map[string][]string{"free": {}}}, true, false},
		{"no list", of("free"), nil, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
			if c.list != nil {
				s.write(*c.list)
			}
			if c.there {
				s.policyTable()
			}
			pod, wired := s.lab.Pod("pod"), false
			_, err := s.run(call{verb: "ADD", container: "pod", netns: pod.Path, args: c.args, step: func(operation string) error {
				if !wired && strings.Contains(operation, "veth") {
					wired = true
					if got := c.there && len(s.evicted()) == 2; got != c.wants {
						t.Errorf("before the wire is made the addresses are evicted: %v", got)
					}
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			if !wired {
				t.Error("no step made the wire")
			}
			s.mustDel("pod", pod.Path)
		})
	}
}

// To be closed costs an ADD one change more, and so does to be evicted; where both, it is
// one. Where there are no policies ADD makes the same changes as ever. No change is made of
// a pod that was opened long ago.
func TestWhatClosingCosts(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	changes := func(verb, namespace, container string, pod *netlab.Namespace) []string {
		t.Helper()
		var all []string
		_, err := s.run(call{verb: verb, container: container, netns: pod.Path, args: of(namespace), step: func(operation string) error {
			all = append(all, strings.Fields(operation)[0])
			if strings.HasPrefix(operation, "nft ") {
				all[len(all)-1] = operation
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	count := func(all []string) string {
		return fmt.Sprintf("%d, of nftables %q", len(all), slices.DeleteFunc(slices.Clone(all), func(o string) bool { return !strings.HasPrefix(o, "nft ") }))
	}
	defer s.runAgent()()
	s.addOf("free", "stays", s.lab.Pod("stays"))
	pod := s.lab.Pod("pod")
	usual := changes("ADD", "prod", "pod", pod)
	usualDel := changes("DEL", "prod", "pod", pod)
	s.policyTable()
	s.write(prodIsClosed)
	s.addOf("prod", "first", s.lab.Pod("first"))
	for _, c := range []struct {
		list      closed.List
		namespace string
		more      []string
	}{
		{prodIsClosed, "free", []string{"nft evict"}},
		{prodIsClosed, "unknown", []string{"nft evict"}},
		{prodIsClosed, "prod", []string{"nft close"}},
		{closed.List{Namespaces: map[string][]string{"free": {}}}, "free", nil},
		{closed.List{}, "prod", nil},
	} {
		s.write(c.list)
		if got, want := changes("ADD", c.namespace, "pod", pod), append(slices.Clone(usual), c.more...); len(got) != len(want) || count(got) != count(want) {
			t.Errorf("ADD in %s: changes %s; want %s", c.namespace, count(got), count(want))
		}
		s.open(s.addressesOf("pod")...)
		if got := changes("DEL", c.namespace, "pod", pod); count(got) != count(usualDel) {
			t.Errorf("DEL in %s: changes %s; want %s", c.namespace, count(got), count(usualDel))
		}
	}
}

// addressesOf returns what an attachment is recorded with.
func (s *stage) addressesOf(container string) (all []string) {
	s.t.Helper()
	record, _ := attachment.OpenDirectory(s.directory).Get(attachment.Key{Network: "net", ContainerID: container, Interface: "eth0"})
	for _, a := range record.Wire.Addresses {
		all = append(all, a.String())
	}
	return all
}

// Pods come and go so that each may be the first or the last, whose DEL removes the
// table: nobody's is removed from under it.
func TestLastPodDoesNotOpenTheNext(t *testing.T) {
	s := newFullStage(t)
	var all sync.WaitGroup
	for i := range 3 {
		name := fmt.Sprint("pod", i)
		pod := s.lab.Pod(name)
		all.Go(func() {
			for range 15 {
				result, err := s.run(call{verb: "ADD", container: name, netns: pod.Path, args: ofProd})
				if err != nil {
					t.Errorf("ADD: %v", err)
					return
				}
				err = s.node.Do(func() error {
					have, err := (&closed.Table{}).Addresses()
					for _, a := range addressesOf(result) {
						if !slices.Contains(have, address(a)) {
							t.Errorf("%s is not closed: only %v are", a, have)
						}
					}
					return err
				})
				if _, delErr := s.run(call{verb: "DEL", container: name, netns: pod.Path}); err != nil || delErr != nil {
					t.Errorf("reading, and DEL: %v, %v", err, delErr)
					return
				}
			}
		})
	}
	all.Wait()
	// Of two DELs that end at once, each may take the other one's for the last.
	s.checkClosed("DEL of all")
	alone := s.lab.Pod("alone")
	s.addOf("prod", "alone", alone)
	s.mustDel("alone", alone.Path)
	s.checkNothingLeft("DEL of one more")
}

// A pod that cannot be closed is not made.
func TestPodThatCannotBeClosed(t *testing.T) {
	s := newFullStage(t)
	pod := s.lab.Pod("pod")
	_, err := s.run(call{verb: "ADD", container: "pod", netns: pod.Path, args: ofProd, step: func(operation string) error {
		if strings.HasPrefix(operation, "nft ") && strings.Contains(operation, "close") {
			return errors.New("injected fault")
		}
		return nil
	}})
	if err == nil || !strings.Contains(err.Error(), "pod prod/web: closing") {
		t.Errorf("ADD: %v", err)
	}
	s.checkNothingLeft("ADD")
}
