package page_test

import (
	"context"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/flatnet-cni/flatnet/pkg/kubectl"
	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/console"
)

// newAPI is an API server that has nodes, and flatnetd on all of them, which answer by
// execute.
func newAPI(t *testing.T, nodes int, execute func(context.Context, *apiserver.Execution)) (server *apiserver.Server, kubeconfig string) {
	t.Helper()
	server = apiserver.New()
	server.Protobuf = true
	of := map[string]string{"app.kubernetes.io/name": "flatnetd"}
	server.Put(&appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "flatnet", Name: "flatnetd", Labels: of},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: of}},
	})
	for i := 1; i <= nodes; i++ {
		server.Put(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name(i)}, Status: v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}}})
		server.Put(&v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "flatnet", Name: "flatnetd-" + name(i), Labels: of},
			Spec:       v1.PodSpec{NodeName: name(i), Containers: []v1.Container{{Name: "flatnetd"}}},
			Status:     v1.PodStatus{Phase: v1.PodRunning},
		})
	}
	server.Execute = execute
	listener := listen(t)
	server.Serve(listener)
	t.Cleanup(server.Stop)
	return server, writeKubeconfig(t, listener.Addr().String())
}

// listen listens at a free port here.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// writeKubeconfig writes one that names an API server.
func writeKubeconfig(t *testing.T, address string) (kubeconfig string) {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["here"] = &clientcmdapi.Cluster{Server: "http://" + address}
	config.Contexts["production"] = &clientcmdapi.Context{Cluster: "here"}
	config.CurrentContext = "production"
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// address is where the page is, as the program prints it.
var address = regexp.MustCompile(`http://127\.0\.0\.1:\d+/\S+`)

// quickly has the page ask all the time: a test waits for what changes.
var quickly = []string{"--interval", "500ms"}

// ui runs `kubectl flatnet ui` until the test ends, and returns the page's address.
func ui(t *testing.T, kubeconfig string, more ...string) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	out, ended := &console.Output{}, make(chan int, 1)
	go func() {
		ended <- kubectl.Main(ctx, "v0.9.0", append(strings.Fields("ui --timeout 5m --each 1m --kubeconfig "+kubeconfig), more...), out, out)
	}()
	t.Cleanup(func() {
		stop()
		if exit := <-ended; exit != 0 {
			t.Errorf("kubectl flatnet ui ended with %d: %s", exit, out)
		}
	})
	return out.Await(t, address)[0]
}
