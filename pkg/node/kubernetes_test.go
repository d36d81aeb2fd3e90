package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// dialer reaches a socket, whatever the address.
type dialer struct{ socket string }

func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", d.socket)
}

// object returns a Node with the InternalIP addresses and podCIDRs of a line
// such as nodesOf reads, and all that a Node has besides.
func object(t testing.TB, line string) *v1.Node {
	t.Helper()
	n := nodesOf(t, line)[0]
	o := &v1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: n.Name, UID: "1", CreationTimestamp: metav1.Time{Time: n.Created},
		Labels: map[string]string{"kubernetes.io/os": "linux"}, Annotations: map[string]string{"a": "b"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
	}}
	o.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: n.Name}, {Type: v1.NodeExternalIP, Address: "198.51.100.1"}}
	for _, a := range n.Addresses {
		o.Status.Addresses = append(o.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a.String()})
	}
	for _, p := range n.PodCIDRs {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, p.String())
	}
	if len(o.Spec.PodCIDRs) > 0 {
		o.Spec.PodCIDR = o.Spec.PodCIDRs[0]
	}
	for i := range 50 {
		o.Status.Images = append(o.Status.Images, v1.ContainerImage{Names: []string{fmt.Sprintf("registry.example.org/%s/%d@sha256:%064d", n.Name, i, i)}, SizeBytes: 1})
	}
	return o
}

// inZone returns the Node with the label of its zone.
func inZone(o *v1.Node, zone string) *v1.Node {
	o.Labels[v1.LabelTopologyZone] = zone
	return o
}

// heartbeat returns the Node as its kubelet reports it some minutes later.
func heartbeat(o *v1.Node, i int) *v1.Node {
	o = o.DeepCopy()
	o.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, LastHeartbeatTime: metav1.Unix(int64(i), 0)}}
	o.Status.Images = o.Status.Images[:i%len(o.Status.Images)]
	return o
}

func TestNodeOf(t *testing.T) {
	internalIP := func(texts ...string) (status v1.NodeStatus) {
		for _, text := range texts {
			status.Addresses = append(status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: text})
		}
		return status
	}
	for _, test := range []struct {
		name   string
		object *v1.Node
		want   string
	}{
		{"dual stack, in a zone", inZone(object(t, "n1 @2026 172.30.0.1 fd00:30::1 10.244.1.0/24 fd00:244:1::/64"), "eu-1a"), "n1 zone=eu-1a 172.30.0.1 fd00:30::1 10.244.1.0/24 fd00:244:1::/64"},
		{"nothing assigned yet", &v1.Node{}, ""},
		{"of an old API server", &v1.Node{Spec: v1.NodeSpec{PodCIDR: "10.244.1.0/24"}}, " 10.244.1.0/24"},
		{"malformed", &v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n1"},
			Spec:       v1.NodeSpec{PodCIDR: "10.9.0.0/24", PodCIDRs: []string{"10.244.1/24", "", "fd00:244:1::/64"}},
			Status:     internalIP("172.30.0.01", "fd00:30::1"),
		}, `n1 fd00:30::1 fd00:244:1::/64
			node n1: addresses[0] "172.30.0.01": is not an IP address
			node n1: podCIDRs[0] "10.244.1/24": is not a prefix such as 10.244.1.0/24
			node n1: podCIDRs[1] "": is not a prefix such as 10.244.1.0/24`},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := nodeOf(test.object)
			stripped, err := strip(test.object)
			if err != nil {
				t.Fatal(err)
			}
			if again := nodeOf(stripped.(*v1.Node)); !again.Equal(n) {
				t.Errorf("stripped it is %v, before %v", again, n)
			}
			if n.Name == "" {
				n.Name, test.want = "n", "n"+test.want // Judge wants a name
			}
			if got, want := textOf(Judge("n1", []Node{n})), lines(test.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if !n.Created.Equal(test.object.CreationTimestamp.Time) {
				t.Errorf("created %v", n.Created)
			}
		})
	}
}

func TestStrip(t *testing.T) {
	o := inZone(object(t, "n1 @2026 172.30.0.1 fd00:30::1 10.244.1.0/24"), "eu-1a")
	o.ResourceVersion = "7"
	got, err := strip(o)
	if err != nil {
		t.Fatal(err)
	}
	want := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "n1", ResourceVersion: "7", CreationTimestamp: o.CreationTimestamp, Labels: map[string]string{v1.LabelTopologyZone: "eu-1a"},
		},
		Spec: v1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24"}},
		Status: v1.NodeStatus{Addresses: []v1.NodeAddress{
			{Type: v1.NodeInternalIP, Address: "172.30.0.1"}, {Type: v1.NodeInternalIP, Address: "fd00:30::1"},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if other, err := strip(t); other != any(t) || err != nil {
		t.Error("what is no Node is changed")
	}
}

// Of what is in a Node's status nothing stays in memory.
func TestListedMemory(t *testing.T) {
	const nodes = 2000
	l := newListed("n1")
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var objects []any
	for i, n := range cluster(nodes) {
		o := object(t, fmt.Sprint(n.Name, " ", n.Addresses[0], " ", n.Addresses[1], " ", n.PodCIDRs[0], " ", n.PodCIDRs[1]))
		if i%2 == 0 {
			objects = append(objects, o)
		}
	}
	full := (heap() - before) / int64(len(objects))
	if err := l.Replace(objects, "1"); err != nil {
		t.Fatal(err)
	}
	for i, n := range cluster(nodes) {
		if i%2 == 1 {
			if err := l.Add(object(t, n.Name+" 172.30.0.1 10.244.1.0/24")); err != nil {
				t.Fatal(err)
			}
		}
	}
	objects = nil
	kept := (heap() - before) / nodes
	t.Logf("a Node has %d bytes, of which %d are kept", full, kept)
	if kept > 1500 || full < 4*kept {
		t.Errorf("%d bytes of a Node are kept, which had %d", kept, full)
	}
	if n, known := l.count(); n != nodes || !known {
		t.Errorf("%d nodes are listed", n)
	}
}

func runKubernetes(t *testing.T, client *apiwatch.Client) *running {
	return run(t, func(log *slog.Logger) Source { return NewKubernetes(client, "n1", log) })
}

func TestKubernetesChanges(t *testing.T) {
	bothServers(t, func(t *testing.T, s *apiServer) {
		s.Put(object(t, "n1 172.30.0.1 10.244.1.0/24"))
		s.Put(object(t, "n2 172.30.0.2"))
		s.start()
		r := runKubernetes(t, s.client())
		r.expect("n1 172.30.0.1 10.244.1.0/24\nn2 172.30.0.2")
		r.checks("")

		s.Put(object(t, "n3"))
		r.expect("n1 172.30.0.1 10.244.1.0/24\nn2 172.30.0.2\nn3")
		s.Put(object(t, "n2 172.30.0.2 10.244.2.0/24"))
		r.expect("n1 172.30.0.1 10.244.1.0/24\nn2 172.30.0.2 10.244.2.0/24\nn3")
		s.Remove(object(t, "n1"))
		r.expect("n2 172.30.0.2 10.244.2.0/24\nn3")
		r.silent()
	})
}

// bothServers runs a test with an API server that streams lists, and with one
// that cannot, in protobuf and in JSON.
func bothServers(t *testing.T, test func(t *testing.T, s *apiServer)) {
	for i := range 4 {
		streams, protobuf := i&1 == 0, i&2 == 0
		t.Run(fmt.Sprintf("streams=%v,protobuf=%v", streams, protobuf), func(t *testing.T) {
			t.Parallel() // client-go waits a second or two here and there
			s := newAPIServer(t, streams)
			s.Protobuf = protobuf
			test(t, s)
		})
	}
}

// The API server goes away and comes back. Nothing is delivered meanwhile, what
// has changed is caught up with in one delivery, and Check tells.
func TestKubernetesServerGone(t *testing.T) {
	bothServers(t, func(t *testing.T, s *apiServer) {
		s.Put(object(t, "n1 172.30.0.1 10.244.1.0/24"))
		s.Put(object(t, "n2 172.30.0.2 10.244.2.0/24"))
		s.start()
		r := runKubernetes(t, s.client())
		r.expect("n1 172.30.0.1 10.244.1.0/24\nn2 172.30.0.2 10.244.2.0/24")
		r.checks("")

		s.Stop()
		r.checks("watching nodes: failing since 20")
		if err := r.source.Check(); !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Check returns %v, want the reason", err)
		}
		s.Remove(object(t, "n1"))
		s.Put(object(t, "n3 172.30.0.3 10.244.3.0/24"))
		s.Compact()
		r.silent()

		s.start()
		r.expect("n2 172.30.0.2 10.244.2.0/24\nn3 172.30.0.3 10.244.3.0/24")
		r.checks("")
		s.Put(object(t, "n4"))
		r.expect("n2 172.30.0.2 10.244.2.0/24\nn3 172.30.0.3 10.244.3.0/24\nn4")
		if n := strings.Count(r.log.String(), "nodes cannot be watched"); n != 1 {
			t.Errorf("the failure is logged %d times", n)
		}
		for _, call := range s.Calls() {
			if call != "GET /api/v1/nodes" && call != "GET /api/v1/nodes watch" {
				t.Errorf("the API server is asked to %s", call)
			}
		}
	})
}

// A start with no API server to be reached waits for it.
func TestKubernetesServerNotThereYet(t *testing.T) {
	bothServers(t, func(t *testing.T, s *apiServer) {
		r := runKubernetes(t, s.client())
		r.checks("watching nodes: failing since 20")
		r.silent()
		s.Put(object(t, "n1"))
		s.start()
		r.expect("n1")
		r.checks("")
	})
}

// What has nothing to do with the network is not delivered.
func TestKubernetesHeartbeats(t *testing.T) {
	bothServers(t, func(t *testing.T, s *apiServer) {
		n1 := object(t, "n1 172.30.0.1 10.244.1.0/24")
		s.Put(n1)
		s.start()
		r := runKubernetes(t, s.client())
		r.expect("n1 172.30.0.1 10.244.1.0/24")
		for i := range 100 {
			s.Put(heartbeat(n1, i))
		}
		s.Put(object(t, "n2"))
		r.expect("n1 172.30.0.1 10.244.1.0/24\nn2")
		r.silent()
	})
}

func TestKubernetesForbidden(t *testing.T) {
	bothServers(t, func(t *testing.T, s *apiServer) {
		s.Put(object(t, "n1"))
		s.Refuse(&metav1.Status{Code: 403, Reason: metav1.StatusReasonForbidden, Message: `nodes is forbidden: User "system:serviceaccount:flatnet:flatnetd" cannot list resource "nodes"`})
		s.start()
		r := runKubernetes(t, s.client())
		r.checks("nodes is forbidden")
		s.Refuse(nil)
		r.expect("n1")
		r.checks("")
	})
}

// A list of zero nodes is not delivered: the own node would not be in it.
func TestKubernetesZeroNodes(t *testing.T) {
	bothServers(t, func(t *testing.T, s *apiServer) {
		s.start()
		r := runKubernetes(t, s.client())
		r.checks("the API server lists zero nodes")
		s.Put(object(t, "n1"))
		r.expect("n1")
		r.checks("")
		s.Remove(object(t, "n1"))
		r.checks("the API server lists zero nodes")
		time.Sleep(10 * settle) // time enough to be delivered; later it would be missed
		r.silent()
	})
}

func TestKubernetesNotAskedYet(t *testing.T) {
	k := NewKubernetes(newAPIServer(t, true).client(), "n1", slog.New(slog.DiscardHandler))
	if err := k.Check(); err == nil || !strings.Contains(err.Error(), "not listed them yet") {
		t.Errorf("Check returns %v", err)
	}
}

// The client of a kubeconfig file, over TCP, with a server that answers protobuf,
// and one that answers JSON although protobuf is preferred.
func TestNewClient(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	for i := range 4 {
		s := newAPIServer(t, i&1 == 0)
		s.Protobuf = i&2 == 0
		s.Put(object(t, "n1 172.30.0.1 10.244.1.0/24"))
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		try(t, err)
		s.Serve(listener)
		write(t, kubeconfig, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
			"clusters": [{"name": "c", "cluster": {"server": "http://%s"}}],
			"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
			"users": [{"name": "u"}]}`, listener.Addr()))
		client, err := apiwatch.NewClient(kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		r := runKubernetes(t, client)
		r.expect("n1 172.30.0.1 10.244.1.0/24")
		s.Put(object(t, "n2"))
		r.expect("n1 172.30.0.1 10.244.1.0/24\nn2")
	}

	if _, err := apiwatch.NewClient(kubeconfig + ".not"); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "reading kubeconfig "+kubeconfig+".not: ") {
		t.Errorf("a missing kubeconfig: %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := apiwatch.NewClient(""); err == nil || !strings.HasPrefix(err.Error(), "finding the API server of the cluster: ") {
		t.Errorf("outside of a cluster: %v", err)
	}
}

// One change of 5,000 nodes: noting it, and making the list to deliver.
func BenchmarkListed(b *testing.B) {
	l := newListed("n1")
	var objects []any
	for _, n := range cluster(5000) {
		objects = append(objects, object(b, fmt.Sprint(n.Name, " ", n.Addresses[0], " ", n.Addresses[1], " ", n.PodCIDRs[0], " ", n.PodCIDRs[1])))
	}
	if err := l.Replace(objects, "1"); err != nil {
		b.Fatal(err)
	}
	b.Run("heartbeat", func(b *testing.B) {
		for b.Loop() {
			l.Update(objects[7])
		}
	})
	last := l.sorted()
	b.Run("change", func(b *testing.B) {
		names := []*v1.Node{object(b, "node-7"), object(b, "node-7 172.30.0.9")}
		for i := 0; b.Loop(); i++ {
			l.Update(names[i%2])
			now := l.sorted()
			if slices.EqualFunc(now, last, Node.Equal) {
				b.Fatal("a change is not seen")
			}
			last = now
		}
	})
}
