package policy

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// apiserving is an API server that may know ClusterNetworkPolicies.
type apiserving struct {
	*apiserver.Server
	url string

	mu      sync.Mutex
	more    *sync.Cond
	version string                                    // of ClusterNetworkPolicies, "" for none
	there   map[string]*apiwatch.ClusterNetworkPolicy // those
	events  []string                                  // since revision 100, as they are sent
	ended   bool
	refused bool     // who asks for ClusterNetworkPolicies
	asked   []string // what is asked of pods
}

func serveAPI(t *testing.T) *apiserving {
	w := &apiserving{Server: apiserver.New(), there: map[string]*apiwatch.ClusterNetworkPolicy{}}
	w.more = sync.NewCond(&w.mu)
	// It serves, so that watches do not end; who asks comes through here.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.Serve(listener)
	front := httptest.NewServer(w)
	w.url = front.URL
	t.Cleanup(func() {
		w.install("", true)
		w.Stop()
		front.CloseClientConnections()
		front.Close()
	})
	return w
}

func (w *apiserving) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	if r.URL.Path == "/api/v1/pods" {
		w.asked = append(w.asked, r.URL.Query().Get("fieldSelector"))
	}
	w.mu.Unlock()
	if !strings.HasPrefix(r.URL.Path, "/apis/"+apiwatch.ClusterNetworkPolicyGroup+"/") {
		w.Server.ServeHTTP(out, r)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	status := 0
	switch {
	case w.refused:
		status = http.StatusForbidden
	case w.version == "" || !strings.Contains(r.URL.Path, w.version+"/"):
		status = http.StatusNotFound
	case r.URL.Query().Get("sendInitialEvents") != "":
		status = http.StatusUnprocessableEntity
	}
	if status != 0 {
		reason := map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound, 422: metav1.StatusReasonInvalid}[status]
		out.Header().Set("Content-Type", "application/json")
		out.WriteHeader(status)
		json.NewEncoder(out).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(status), Reason: reason, Message: string(reason)})
		return
	}
	out.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") == "" {
		// In the order of the alphabet, as custom resources are.
		json.NewEncoder(out).Encode(map[string]any{
			"apiVersion": apiwatch.ClusterNetworkPolicyGroup + "/" + w.version, "kind": "ClusterNetworkPolicyList",
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(100 + len(w.events))},
			"items":    slices.Collect(maps.Values(w.there)),
		})
		return
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	next := max(0, from-100)
	version := w.version
	for version == w.version && !w.ended {
		for ; next < len(w.events); next++ {
			fmt.Fprintln(out, w.events[next])
		}
		out.(http.Flusher).Flush()
		w.more.Wait()
	}
}

// install has the API server know ClusterNetworkPolicies in a version, "" for no more.
func (w *apiserving) install(version string, end bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.version, w.ended = version, end
	w.more.Broadcast()
}

func (w *apiserving) refuse(refused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = refused
}

func (w *apiserving) cluster(kind string, o *apiwatch.ClusterNetworkPolicy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o.Kind, o.APIVersion = "ClusterNetworkPolicy", apiwatch.ClusterNetworkPolicyGroup+"/"+w.version
	o.ResourceVersion = strconv.Itoa(100 + len(w.events) + 1)
	if w.there[o.Name] = o; kind == "DELETED" {
		delete(w.there, o.Name)
	}
	event, err := json.Marshal(map[string]any{"type": kind, "object": o})
	if err != nil {
		panic(err)
	}
	w.events = append(w.events, string(event))
	w.more.Broadcast()
}

// podsAsked are the selections of pods that were asked for since the last call.
func (w *apiserving) podsAsked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

// running is a source that runs until the test ends.
type running struct {
	Source
	t    *testing.T
	pods map[string]string // what is known, in words, by the first two
}

func (w *apiserving) run(t *testing.T) (*Kubernetes, *running) {
	t.Helper()
	client, err := apiwatch.NewClientFor(&rest.Config{Host: w.url})
	must(t, err)
	k := NewKubernetes(client, slog.New(slog.DiscardHandler))
	k.again = 20 * time.Millisecond
	if k.Known() || k.Check() == nil {
		t.Error("everything is known before it runs")
	}
	go k.Run(t.Context())
	return k, &running{k, t, map[string]string{}}
}

// await takes until what is known is as wanted, a line each.
func (r *running) await(what string, want ...string) {
	r.t.Helper()
	slices.Sort(want)
	deadline := time.After(pace.Far())
	var got []string
	for {
		select {
		case <-r.Changed():
		case <-deadline:
			r.t.Fatalf("%s: got\n%s\nwant\n%s\nthe source says %v", what, strings.Join(got, "\n"), strings.Join(want, "\n"), r.Check())
		}
		b := r.Take()
		for name, p := range b.Pods {
			if delete(r.pods, "pod "+name.String()); p != nil {
				r.pods["pod "+name.String()] = "pod " + name.String() + fmt.Sprint(" ", p.Addresses)
			}
		}
		for name, n := range b.Namespaces {
			if delete(r.pods, "namespace "+name); n != nil {
				r.pods["namespace "+name] = "namespace " + name + " " + n.Labels.String()
			}
		}
		for name, n := range b.Nodes {
			if delete(r.pods, "node "+name); n != nil {
				r.pods["node "+name] = "node " + name + fmt.Sprint(" ", n.Addresses)
			}
		}
		for key, p := range b.Policies {
			if delete(r.pods, key.String()); p != nil {
				r.pods[key.String()] = key.String()
			}
		}
		if got = slices.Sorted(maps.Values(r.pods)); slices.Equal(got, want) {
			return
		}
	}
}

// settles waits until the source is healthy, or not.
func (r *running) settles(healthy bool) (last error) {
	r.t.Helper()
	_, err := pace.Await(pace.Far(), func() error {
		if last = r.Check(); (last == nil) != healthy {
			return fmt.Errorf("the source says %v", last)
		}
		return nil
	})
	must(r.t, err)
	return last
}

func TestKubernetes(t *testing.T) {
	for _, c := range []struct{ protobuf, streams bool }{{true, true}, {true, false}, {false, false}} {
		t.Run(fmt.Sprintf("protobuf=%v,streams=%v", c.protobuf, c.streams), func(t *testing.T) {
			w := serveAPI(t)
			w.Protobuf, w.Streams = c.protobuf, c.streams
			host, done := podObject("host", "10.0.0.7"), podObject("done", "10.0.0.1")
			host.Spec.HostNetwork = true
			done.Status.Phase = "Failed"
			for _, o := range []apiserver.Object{podObject("a", "10.0.0.1"), host, done, namespaceObject("shop")} {
				w.Put(o)
			}
			k, r := w.run(t)
			_, err := pace.Await(pace.Far(), k.Check)
			must(t, err)
			if got := k.Take().text(); got != "" || !k.Known() {
				t.Errorf("told is %q, known %v", got, k.Known())
			}
			if asked := w.podsAsked(); len(asked) > 0 {
				t.Errorf("pods are asked for without a policy: %q", asked)
			}
			w.Put(networkPolicy(t, `{}`))
			const shop = "namespace shop kubernetes.io/metadata.name=shop"
			r.await("a policy", "NetworkPolicy shop/p", shop, "pod shop/a [10.0.0.1]")
			if asked := w.podsAsked(); len(asked) == 0 || asked[0] != "spec.hostNetwork=false,status.phase!=Succeeded,status.phase!=Failed" {
				t.Errorf("of pods was asked %q", asked)
			}
			r.settles(true)
			w.Put(podObject("b", "10.0.0.2"))
			w.Remove(podObject("a", ""))
			r.await("pods change", "NetworkPolicy shop/p", shop, "pod shop/b [10.0.0.2]")
			w.Remove(networkPolicy(t, `{}`))
			r.await("the last policy goes")
			w.Put(podObject("c", "10.0.0.3"))
			w.Put(networkPolicy(t, `{}`))
			r.await("it is back", "NetworkPolicy shop/p", shop, "pod shop/b [10.0.0.2]", "pod shop/c [10.0.0.3]")
			bad := networkPolicy(t, `{podSelector: {matchExpressions: [{key: x, operator: Like}]}}`)
			bad.Name = "bad"
			w.Put(bad)
			_, err = pace.Await(pace.Far(), func() error {
				if wrong := k.Unread(); len(wrong) != 1 || wrong[0].Object != "NetworkPolicy shop/bad" || !strings.HasSuffix(wrong[0].Why, "; it is not in force") {
					return fmt.Errorf("wrong are %v", wrong)
				}
				return nil
			})
			must(t, err)
			// One that was good says what it said.
			bad = networkPolicy(t, `{podSelector: {matchExpressions: [{key: x, operator: Like}]}}`)
			w.Put(bad)
			_, err = pace.Await(pace.Far(), func() error {
				if wrong := k.Unread(); len(wrong) != 2 || wrong[1].Object != "NetworkPolicy shop/p" || !strings.HasSuffix(wrong[1].Why, "; what it said before is in force") {
					return fmt.Errorf("wrong are %v", wrong)
				}
				return nil
			})
			must(t, err)
			if got := k.Take().text(); got != "" {
				t.Errorf("a policy that is none now: told is %s", got)
			}
		})
	}
}

func TestClusterPolicies(t *testing.T) {
	w := serveAPI(t)
	w.Put(podObject("a", "10.0.0.1"))
	w.Put(namespaceObject("shop"))
	k, r := w.run(t)
	r.settles(true)
	all := func() *apiwatch.ClusterNetworkPolicy {
		return clusterPolicy(t, "tier: Admin\nsubject: {namespaces: {}}")
	}
	there := []string{"namespace shop kubernetes.io/metadata.name=shop", "pod shop/a [10.0.0.1]"}
	w.install("v1alpha2", false)
	w.cluster("ADDED", all())
	r.await("they are installed", append(there, "ClusterNetworkPolicy p")...)
	other := all()
	other.Name = "other"
	w.cluster("ADDED", other)
	r.await("another one", append(there, "ClusterNetworkPolicy p", "ClusterNetworkPolicy other")...)
	w.cluster("DELETED", all())
	r.await("one goes", append(there, "ClusterNetworkPolicy other")...)
	w.install("v1beta1", false)
	third := all()
	third.Name = "third"
	w.cluster("ADDED", third)
	r.await("a newer version", append(there, "ClusterNetworkPolicy other", "ClusterNetworkPolicy third")...)
	w.install("", false)
	r.await("they are removed")
	r.settles(true)
	if !k.Known() {
		t.Error("not everything is known")
	}
}

// Nodes are watched while a policy names some.
func TestNodesOfPolicies(t *testing.T) {
	w := serveAPI(t)
	w.Put(nodeObject("n1", "a", "10.0.0.9"))
	_, r := w.run(t)
	r.settles(true)
	w.install("v1alpha2", false)
	w.cluster("ADDED", clusterPolicy(t, "tier: Admin\nsubject: {namespaces: {}}"))
	r.await("a policy that names none", "ClusterNetworkPolicy p")
	w.cluster("MODIFIED", clusterPolicy(t, towardsNodes))
	r.await("it names some", "ClusterNetworkPolicy p", "node n1 [10.0.0.9]")
	w.Put(nodeObject("n2", "b", "10.0.0.10", "fd00::a"))
	r.await("a node comes", "ClusterNetworkPolicy p", "node n1 [10.0.0.9]", "node n2 [10.0.0.10 fd00::a]")
	w.Remove(nodeObject("n1", "a"))
	r.await("one goes", "ClusterNetworkPolicy p", "node n2 [10.0.0.10 fd00::a]")
	w.cluster("MODIFIED", clusterPolicy(t, "tier: Admin\nsubject: {namespaces: {}}"))
	r.await("it names none any more", "ClusterNetworkPolicy p")
	w.Remove(nodeObject("n2", "b"))
	w.cluster("MODIFIED", clusterPolicy(t, towardsNodes))
	w.Put(nodeObject("n3", "a", "10.0.0.11"))
	r.await("it does again", "ClusterNetworkPolicy p", "node n3 [10.0.0.11]")
	r.settles(true)
}

// Where ClusterNetworkPolicies may not be listed, the NetworkPolicies are told all the
// same: an API server answers so, too, where they are not installed. The source says so.
func TestClusterPoliciesRefused(t *testing.T) {
	w := serveAPI(t)
	w.Put(networkPolicy(t, `{}`))
	w.Put(podObject("a", "10.0.0.1"))
	w.refuse(true)
	k, r := w.run(t)
	_, err := pace.Await(pace.Far(), func() error {
		if err := k.Check(); !strings.Contains(fmt.Sprint(err), "asking for ClusterNetworkPolicies: ") {
			return fmt.Errorf("the source says %w", err)
		}
		return nil
	})
	must(t, err)
	r.await("the others", "NetworkPolicy shop/p", "pod shop/a [10.0.0.1]")
	w.refuse(false)
	r.settles(true)
}

// What is known stays while the API server is away.
func TestKubernetesAway(t *testing.T) {
	w := serveAPI(t)
	w.Put(networkPolicy(t, `{}`))
	w.Put(podObject("a", "10.0.0.1"))
	k, r := w.run(t)
	r.await("all", "NetworkPolicy shop/p", "pod shop/a [10.0.0.1]")
	w.Refuse(&metav1.Status{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "no"})
	w.Compact()
	w.Put(podObject("b", "10.0.0.2"))
	w.Remove(podObject("a", ""))
	w.Compact()
	w.Refuse(nil)
	r.await("what happened meanwhile", "NetworkPolicy shop/p", "pod shop/b [10.0.0.2]")
	if !k.Known() {
		t.Error("not everything is known")
	}
}
