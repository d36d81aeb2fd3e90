package page_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/console"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// site is three nodes of namespaces with the real flatnetd, two on one network and one
// behind a router, and an API server that executes commands on them as the kubelets
// would.
type site struct {
	*cluster.Cluster
	t      *testing.T
	router *netlab.Node
	server *apiserver.Server
	pods   []*cluster.Pod
	// kubeconfig is for who asks from here.
	kubeconfig string
	flags      []string
}

const controlAddress = "172.30.0.250:6443"

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Cluster: cluster.Start(t), t: t}
	s.Health = "auto"
	left, _, router := s.TwoSegments(cluster.Dual, 2, 1)
	s.router = router
	control := s.Lab.Node("control", left.Port("172.30.0.250/24"))
	must(t, control.AddRoute("default", "172.30.0.254"))
	var server *apiserver.Server
	server, _ = newAPI(t, 3, s.execute)
	server.Streams = true
	s.server = server
	// The agents reach it over the underlay, and who looks at the page from here.
	var l net.Listener
	must(t, control.Do(func() (err error) {
		l, err = net.Listen("tcp", controlAddress)
		return err
	}))
	server.Serve(l)
	s.kubeconfig = writeKubeconfig(t, forward(t, control.Namespace, controlAddress))
	objects := filepath.Join(s.Directory, "objects")
	must(t, os.Mkdir(objects, 0o700))
	s.flags = []string{"--fabric", "auto", "--services", "--kubeconfig", writeKubeconfig(t, controlAddress), "--policies", "--policies-dir", objects}
	s.WriteNodes()
	for _, n := range s.Nodes {
		n.Start(append(s.flags, "--policies-file", filepath.Join(n.Directory, "policies.json"))...)
	}
	for _, n := range s.Nodes {
		n.WaitReady()
	}
	s.pods = []*cluster.Pod{s.Node("n1").Pod("web-0"), s.Node("n1").Pod("db-0"), s.Node("n2").Pod("web-1"), s.Node("n3").Pod("web-2")}
	s.describe(objects)
	return s
}

// describe tells the API server and the agents of the pods, of a Service over some of
// them, and of a policy.
func (s *site) describe(objects string) {
	s.t.Helper()
	endpoints := &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "test", Name: "web-1", Labels: map[string]string{discovery.LabelServiceName: "web"}},
		AddressType: discovery.AddressTypeIPv4, Ports: []discovery.EndpointPort{{Name: ptr.To("http"), Protocol: ptr.To(v1.ProtocolTCP), Port: ptr.To[int32](8080)}},
	}
	var text strings.Builder
	fmt.Fprintln(&text, "apiVersion: v1\nkind: Namespace\nmetadata: {name: test}")
	for _, p := range s.pods {
		app, _, _ := strings.Cut(p.Name, "-")
		if app == "web" {
			endpoints.Endpoints = append(endpoints.Endpoints, discovery.Endpoint{Addresses: []string{p.Address(false).String()}, NodeName: &p.Node.Name, Conditions: discovery.EndpointConditions{Ready: ptr.To(true)}})
		}
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Pod\nmetadata: {namespace: %s, name: %s, labels: {app: %s}}\nspec: {nodeName: %s, containers: [{name: c}]}\nstatus: {phase: Running, podIPs: [{ip: %q}, {ip: %q}]}\n",
			p.Space, p.Name, app, p.Node.Name, p.Address(false), p.Address(true))
	}
	fmt.Fprintln(&text, `---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: test, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]`)
	s.server.Put(endpoints)
	s.server.Put(&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: "web"}, Spec: v1.ServiceSpec{
		Type: v1.ServiceTypeClusterIP, ClusterIP: "10.96.0.20", ClusterIPs: []string{"10.96.0.20"}, Ports: []v1.ServicePort{{Name: "http", Protocol: v1.ProtocolTCP, Port: 80}},
	}})
	fresh := filepath.Join(objects, "all.yaml.new")
	must(s.t, os.WriteFile(fresh, []byte(text.String()), 0o600))
	must(s.t, os.Rename(fresh, strings.TrimSuffix(fresh, ".new")))
}

// execute runs flatnetd on the node of a pod.
func (s *site) execute(_ context.Context, e *apiserver.Execution) {
	for _, n := range s.Nodes {
		if "flatnetd-"+n.Name != e.Pod {
			continue
		}
		words, flags := e.Command[1:], []string(nil)
		if len(words) > 1 {
			flags = words[1:]
		}
		// Flags may come before and after what is asked about.
		arguments := append(append([]string{words[0]}, n.Flags()...), flags...)
		var out, errOut strings.Builder
		cmd := exec.Command(filepath.Join(s.Binaries, "flatnetd"), arguments...)
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := n.Run(cmd); err != nil {
			e.Exit = 1
		}
		e.Out, e.ErrOut = []byte(out.String()), []byte(errOut.String())
	}
}

// page runs `flatnetd page` on a node until the test ends, and returns its address from
// here: it is forwarded, as ssh -L does.
func (s *site) page(n *cluster.Node) (here string) {
	s.t.Helper()
	out := &console.Output{}
	cmd := exec.Command(filepath.Join(s.Binaries, "flatnetd"), append([]string{"page"}, n.Flags()...)...)
	cmd.Stdout, cmd.Stderr = out, out
	wait, err := n.Node.Start(cmd)
	must(s.t, err)
	s.t.Cleanup(func() {
		must(s.t, cmd.Process.Signal(syscall.SIGTERM))
		if err := wait(); err != nil {
			s.t.Errorf("flatnetd page: %v: %s", err, out)
		}
	})
	there := out.Await(s.t, address)[0]
	host, _, _ := strings.Cut(strings.TrimPrefix(there, "http://"), "/")
	return strings.Replace(there, host, forward(s.t, n.Node.Namespace, host), 1)
}

// forward takes connections here to an address as it is seen in a namespace.
func forward(t *testing.T, to *netlab.Namespace, address string) (here string) {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			go func() {
				defer from.Close()
				var there net.Conn
				if to.Do(func() (err error) {
					there, err = net.Dial("tcp", address)
					return err
				}) != nil {
					return // who asks sees that nobody answers
				}
				defer there.Close()
				go func() {
					_, _ = io.Copy(there, from)
					there.Close()
				}()
				_, _ = io.Copy(from, there)
			}()
		}
	}()
	return l.Addr().String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
