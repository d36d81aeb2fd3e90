package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// executes is an executor of one function.
type executes func(ctx context.Context, in container, command ...string) ([]byte, error)

func (f executes) Exec(ctx context.Context, in container, command ...string) ([]byte, error) {
	return f(ctx, in, command...)
}

// lab is an API server that has nodes, and flatnetd on all of them.
type lab struct {
	server *apiserver.Server
	client *client
	config *rest.Config
}

func newLab(t testing.TB, nodes int) *lab {
	t.Helper()
	l := &lab{server: apiserver.New()}
	l.server.Protobuf = true
	l.server.Put(daemonSet())
	for i := 1; i <= nodes; i++ {
		l.server.Put(nodeNamed(nodeName(i)))
		l.server.Put(agentOn(nodeName(i)))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.server.Serve(listener)
	t.Cleanup(l.server.Stop)
	l.config = &rest.Config{Host: "http://" + listener.Addr().String()}
	if l.client, err = newClient(l.config, "test"); err != nil {
		t.Fatal(err)
	}
	return l
}

// kubeconfig writes one that names the API server.
func (l *lab) kubeconfig(t *testing.T) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["here"] = &clientcmdapi.Cluster{Server: l.config.Host}
	config.Contexts["it"] = &clientcmdapi.Context{Cluster: "here", Namespace: "shop"}
	config.CurrentContext = "it"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// look is the survey of the lab.
func (l *lab) look(t testing.TB) *survey {
	t.Helper()
	s, err := l.client.look(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i) }

func nodeNamed(name string) *v1.Node {
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/os": "linux"}},
		Status:     v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}},
	}
}

func daemonSet() *apps.DaemonSet {
	of := map[string]string{"app.kubernetes.io/name": "flatnetd"}
	return &apps.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "net", Name: "flatnetd", Labels: of},
		Spec: apps.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: of},
			Template: v1.PodTemplateSpec{Spec: v1.PodSpec{NodeSelector: map[string]string{"kubernetes.io/os": "linux"}}},
		},
	}
}

// agentOn is a flatnetd that runs on a node.
func agentOn(node string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "net", Name: "flatnetd-" + node, Labels: map[string]string{"app.kubernetes.io/name": "flatnetd"}},
		Spec:       v1.PodSpec{NodeName: node, Containers: []v1.Container{{Name: "flatnetd"}}},
		Status:     v1.PodStatus{Phase: v1.PodRunning},
	}
}

// fine is what a flatnetd says where all is well.
func fine(node string) map[string]any {
	return map[string]any{
		"node": node, "version": "v1.2.3", "since": time.Unix(1_000_000, 0).UTC(), "ready": true, "fabric": "auto", "podMTU": 1450,
		"pods":     []any{map[string]any{"family": "IPv4", "used": 3, "total": 253}, map[string]any{"family": "IPv6", "used": 2}},
		"joined":   []any{map[string]any{"mode": "direct", "peers": 2}},
		"problems": []any{},
	}
}

// answers answers the brief status as change says, which gets what is fine.
func answers(change func(node string, status map[string]any) error) executes {
	return func(_ context.Context, in container, command ...string) ([]byte, error) {
		if got := strings.Join(command, " "); got != "flatnetd status -o json --brief" || in.Namespace != "net" || in.Name != "flatnetd" {
			return nil, fmt.Errorf("asked is %v for %q", in, got)
		}
		node := strings.TrimPrefix(in.Pod, "flatnetd-")
		status := fine(node)
		if err := change(node, status); err != nil {
			return nil, err
		}
		return json.Marshal(status)
	}
}
