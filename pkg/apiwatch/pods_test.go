package apiwatch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// busyPod has what matters and much that does not.
func busyPod(i int) *v1.Pod {
	always := v1.ContainerRestartPolicyAlways
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: fmt.Sprint("web-", i), UID: "u", Labels: map[string]string{"app": "web", "hash": "x"},
		Annotations: map[string]string{"config": strings.Repeat("x", 2000)}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
	}}
	p.Spec.NodeName = "n1"
	p.Spec.InitContainers = []v1.Container{
		{Name: "init", Ports: []v1.ContainerPort{{Name: "once", ContainerPort: 1}}},
		{Name: "sidecar", RestartPolicy: &always, Ports: []v1.ContainerPort{{Name: "metrics", ContainerPort: 9000, Protocol: "TCP"}}},
	}
	p.Spec.Containers = []v1.Container{{Name: "web", Env: []v1.EnvVar{{Name: "A", Value: strings.Repeat("b", 3000)}}, Ports: []v1.ContainerPort{{Name: "web", ContainerPort: 80, HostPort: 8080, Protocol: "TCP"}, {ContainerPort: 81}}}}
	p.Status.Phase = v1.PodRunning
	p.Status.PodIP = fmt.Sprintf("10.0.%d.%d", i>>8, i&255)
	p.Status.PodIPs = []v1.PodIP{{IP: p.Status.PodIP}, {IP: fmt.Sprintf("2001:db8::%x", i)}}
	return p
}

func podList(n int) *v1.PodList {
	list := &v1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}}
	for i := range n {
		list.Items = append(list.Items, *busyPod(i))
	}
	return list
}

// What is read of a pod in protobuf is what is kept of one that is known whole.
func TestReadPod(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	read := podKind().reads()
	for i := range 200 {
		p := busyPod(i)
		for _, drop := range []func(){
			func() { p.Labels = nil }, func() { p.Spec.NodeName = "" }, func() { p.Spec.InitContainers = nil }, func() { p.Spec.Containers = nil },
			func() { p.Status.PodIPs = nil }, func() { p.Status.PodIPs, p.Status.PodIP = nil, "" }, func() { p.Spec.HostNetwork = true },
			func() { p.Status.Phase = v1.PodFailed }, func() { p.Annotations[metav1.InitialEventsAnnotationKey] = "true" },
		} {
			if random.IntN(3) == 0 {
				drop()
			}
		}
		want := PodOf(p)
		message, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := read.protobuf(message)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("in protobuf: got\n%+v, %v, want\n%+v", got, err, want)
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err = read.json(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("in JSON: got\n%+v, %v, want\n%+v", got, err, want)
		}
		if c := got.DeepCopyObject(); !reflect.DeepEqual(c, got) {
			t.Fatalf("a copy is\n%+v, want\n%+v", c, got)
		}
		for end := range message {
			_, _ = readPod(message[:end]) // whatever it is, it is no panic
		}
	}
}

// Pods with the same labels share them, and a list is never in memory as a whole.
func TestMemoryOfPods(t *testing.T) {
	const pods = 500
	raw := protobufOf(t, podList(pods))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	list, err := readList(bufio.NewReaderSize(bytes.NewReader(raw), bufferSize), podKind())
	runtime.ReadMemStats(&after)
	if err != nil || len(list.Items) != pods {
		t.Fatal(err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(len(raw))/2 {
		t.Errorf("reading %d bytes of %d pods took %d bytes in all", len(raw), pods, took)
	}
	one, other := list.Items[0].(*Pod).Labels, list.Items[1].(*Pod).Labels
	if reflect.ValueOf(one).Pointer() != reflect.ValueOf(other).Pointer() {
		t.Error("two pods have the same labels twice")
	}
}

func TestLabelSets(t *testing.T) {
	var l labelSets
	for i := range mostSets + 10 {
		if got := l.one(map[string]string{"i": fmt.Sprint(i)}); got["i"] != fmt.Sprint(i) {
			t.Fatal(got)
		}
	}
	if len(l.sets) > mostSets {
		t.Errorf("%d are remembered", len(l.sets))
	}
	if l.one(map[string]string{"a": "b"})["a"] != "b" || l.one(nil) != nil || len(l.one(map[string]string{"a": "b", "c": ""})) != 2 {
		t.Error("labels are mistaken for others")
	}
}

// listed asks for all objects of a kind.
func listed(t *testing.T, of Resource) []apiruntime.Object {
	t.Helper()
	list, err := of.list(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	items, err := meta.ExtractListWithAlloc(list)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// served is a client of an API server behind a front that may answer itself.
func served(t *testing.T, s *apiserver.Server, front func(http.ResponseWriter, *http.Request) bool) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(listener)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !front(w, r) {
			s.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		s.Stop()
		server.CloseClientConnections()
		server.Close()
	})
	c, err := NewClientFor(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func refused(w http.ResponseWriter, code int, reason metav1.StatusReason) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: "no"})
	return true
}

// An API server before 1.28 does not select by the host's network.
func TestPodsOfAnOlderServer(t *testing.T) {
	for _, protobuf := range []bool{true, false} {
		s := apiserver.New()
		s.Protobuf = protobuf
		host, done := busyPod(1), busyPod(2)
		host.Spec.HostNetwork, done.Status.Phase = true, v1.PodSucceeded
		for _, p := range []*v1.Pod{busyPod(0), host, done} {
			s.Put(p)
		}
		var asked []string
		c := served(t, s, func(w http.ResponseWriter, r *http.Request) bool {
			selector := r.URL.Query().Get("fieldSelector")
			asked = append(asked, selector)
			return strings.Contains(selector, "hostNetwork") && refused(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		})
		pods := c.Pods()
		for range 2 {
			items := listed(t, pods)
			if len(items) != 2 || items[0].(*Pod).Phase != v1.PodRunning || items[1].(*Pod).Phase != v1.PodRunning {
				t.Errorf("listed are %v", items)
			}
		}
		if want := []string{"spec.hostNetwork=false," + running, running, running}; !reflect.DeepEqual(asked, want) {
			t.Errorf("asked was %q, want %q", asked, want)
		}
	}
}

func TestNamespacesAndNetworkPolicies(t *testing.T) {
	for _, protobuf := range []bool{true, false} {
		s := apiserver.New()
		s.Protobuf = protobuf
		about := metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"x": "y"}}
		s.Put(&v1.Namespace{ObjectMeta: about, Status: v1.NamespaceStatus{Phase: v1.NamespaceActive}})
		about.Namespace = "shop"
		s.Put(&networking.NetworkPolicy{ObjectMeta: about, Spec: networking.NetworkPolicySpec{PolicyTypes: []networking.PolicyType{"Egress"}}})
		c := served(t, s, func(http.ResponseWriter, *http.Request) bool { return false })
		if all := listed(t, c.Namespaces()); len(all) != 1 || !reflect.DeepEqual(all[0], &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", ResourceVersion: "11", Labels: about.Labels}}) {
			t.Errorf("listed are %+v", all)
		}
		all := listed(t, c.NetworkPolicies())
		if len(all) != 1 {
			t.Fatalf("listed are %+v", all)
		}
		if p := all[0].(*networking.NetworkPolicy); p.Name != "shop" || p.Namespace != "shop" || p.Annotations != nil || p.Spec.PolicyTypes[0] != "Egress" {
			t.Errorf("listed is %+v", p)
		}
	}
}

func TestClusterNetworkPolicies(t *testing.T) {
	version, refuses := "", 0
	c := served(t, apiserver.New(), func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case refuses != 0:
			return refused(w, refuses, metav1.StatusReasonForbidden)
		case version == "" || !strings.Contains(r.URL.Path, "/"+version+"/"):
			return refused(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"apiVersion": "policy.networking.k8s.io/v1alpha2", "items": [
			{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "a", "annotations": {"x": "y"}}, "spec": {"tier": "Admin", "priority": 7, "more": 1}, "status": {"conditions": []}},
			{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "b"}, "spec": {"priority": "high"}}
		], "kind": "ClusterNetworkPolicyList", "metadata": {"resourceVersion": "3"}}`)
		return true
	})
	for _, want := range append(ClusterNetworkPolicyVersions(), "") {
		version = want
		if got, err := c.FindClusterNetworkPolicies(t.Context()); got != want || err != nil {
			t.Errorf("the version is %q, %v, want %q", got, err, want)
		}
	}
	refuses = http.StatusForbidden
	if got, err := c.FindClusterNetworkPolicies(t.Context()); got != "" || err == nil {
		t.Errorf("where it is refused, the version is %q, %v", got, err)
	}
	refuses, version = 0, "v1alpha2"
	gone := 0
	of := c.ClusterNetworkPolicies(version).WhenGone(func() { gone++ })
	all := listed(t, of)
	if len(all) != 2 || gone != 0 {
		t.Fatalf("listed are %v; gone %d", all, gone)
	}
	a, b := all[0].(*ClusterNetworkPolicy), all[1].(*ClusterNetworkPolicy)
	if a.Name != "a" || a.Spec.Priority != 7 || a.Spec.Tier != "Admin" || a.Annotations != nil || a.Malformed != nil {
		t.Errorf("the first is %+v", a)
	}
	if b.Name != "b" || b.Malformed == nil {
		t.Errorf("the second is %+v", b)
	}
	if c := a.DeepCopyObject(); !reflect.DeepEqual(c, a) {
		t.Errorf("a copy is %+v, want %+v", c, a)
	}
	version = ""
	if _, err := of.list(t.Context(), metav1.ListOptions{}); err == nil || gone != 1 {
		t.Errorf("without them: %v; gone %d", err, gone)
	}
	if _, err := of.watch(t.Context(), metav1.ListOptions{}); err == nil || gone != 2 {
		t.Errorf("without them: %v; gone %d", err, gone)
	}
}

func TestJSONListsThatAreNone(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"cut off", `{"kind": "PodList", "items": [{"metadata": {}}`, "unexpected EOF"},
		{"cut off between", `{"kind": "PodList", "items": [{"metadata": {}},`, "unexpected EOF"},
		{"cut off after the items", `{"kind": "PodList", "items": [{"metadata": {}}]`, "unexpected EOF"},
		{"another kind, said late", `{"items": [], "kind": "NodeList"}`, `answered with a "NodeList"`},
		{"no kind", `{"items": []}`, `answered with a ""`},
		{"no items", `{"kind": "PodList", "items": {}}`, "there is { and not ["},
		{"no list", `[1, 2]`, "there is [ and not {"},
		{"a pod that is none", `{"kind": "PodList", "items": [{"metadata": {"namespace": "shop", "name": "web"}, "spec": []}]}`, "decoding Pod shop/web: "},
		{"without a name", `{"kind": "PodList", "items": [{"spec": []}]}`, "decoding a Pod: "},
	} {
		_, err := readList(bufio.NewReader(strings.NewReader(c.text)), podKind())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: it is %v, want %s", c.name, err, c.want)
		}
	}
	list, err := readList(bufio.NewReader(strings.NewReader(`{"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": null, "other": [1]}`)), podKind())
	if err != nil || len(list.Items) != 0 || list.ResourceVersion != "5" {
		t.Errorf("an empty list is %v, %v", list, err)
	}
}
