package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// get asks from a namespace, as the load balancers and the monitoring of kube-proxy do.
func get(from *netlab.Namespace, address, path string) (status int, text string, err error) {
	client := http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = from.Do(func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
	answer, err := client.Get("http://" + address + path)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// health is what kube-proxy says of itself to load balancers.
type health struct {
	LastUpdated, CurrentTime time.Time
	NodeEligible             *bool
	Healthy                  bool
}

// says asks for a node's health from outside, and describes the answer.
func (s *site) says(node, path string) string {
	status, text, err := get(s.client.Namespace, at(s.Node(node).Addresses[0], 10256).String(), path)
	if err != nil {
		return err.Error()
	}
	var h health
	if err := json.Unmarshal([]byte(text), &h); err != nil || h.LastUpdated.IsZero() || h.CurrentTime.Before(h.LastUpdated) {
		return fmt.Sprintf("%s: %v", text, err)
	}
	said := fmt.Sprintf("%d, healthy %t", status, h.Healthy)
	if h.NodeEligible != nil {
		said += fmt.Sprintf(", eligible %t", *h.NodeEligible)
	}
	return said
}

// TestAskedAsKubeProxy: what asks kube-proxy at a node's own ports gets an answer, by
// the urls of Kubernetes' test "should check kube-proxy urls" and by its metrics.
func TestAskedAsKubeProxy(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	s.apply(s.service("a1", "b1"))
	n1 := s.Node("n1")
	ask := func(port uint16, path string) string {
		t.Helper()
		status, text, err := get(n1.Namespace, fmt.Sprintf("localhost:%d", port), path)
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprintf("%d %s", status, strings.TrimSpace(text))
	}
	for path, want := range map[string]string{"/proxyMode": "200 nftables", "/healthz": "200 ok", "/nothing": "404 404 page not found"} {
		if got := ask(10249, path); got != want {
			t.Errorf("%s at port 10249: %q, want %q", path, got, want)
		}
	}
	if got := ask(10256, "/healthz"); !strings.HasPrefix(got, "200 ") || !strings.Contains(got, "lastUpdated") {
		t.Errorf("/healthz at port 10256: %s", got)
	}
	for path, want := range map[string]string{"/healthz": "200, healthy true, eligible true", "/livez": "200, healthy true"} {
		if got := s.says("n1", path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		t.Log(path, ask(10256, path))
	}
	if _, _, err := get(s.client.Namespace, at(n1.Addresses[0], 10249).String(), "/metrics"); err == nil {
		t.Error("metrics are told to whoever is outside")
	}

	before := proxyMetrics(t, n1)
	v := s.service("a1")
	v.Slices[0].Triggered = time.Now()
	s.control.put(v)
	s.reached()
	after := proxyMetrics(t, n1)
	grown := func(name string) float64 { return after[name] - before[name] }
	// The tests' Service and its slice, and those of the marker.
	for name, want := range map[string]float64{
		"kubeproxy_sync_proxy_rules_service_changes_total":        2,
		"kubeproxy_sync_proxy_rules_endpoint_changes_total":       2,
		"kubeproxy_network_programming_duration_seconds_count":    1,
		"kubeproxy_sync_full_proxy_rules_duration_seconds_count":  0,
		"kubeproxy_sync_proxy_rules_nftables_sync_failures_total": 0,
		`kubeproxy_proxy_healthz_total{code="200"}`:               0,
	} {
		if grown(name) != want {
			t.Errorf("%s has grown by %v, not by %v", name, grown(name), want)
		}
	}
	if before[`kubeproxy_proxy_healthz_total{code="200"}`] < 2 || before[`kubeproxy_proxy_livez_total{code="200"}`] < 1 {
		t.Errorf("answers are not counted: %v", before)
	}
	if all, partial := grown("kubeproxy_sync_proxy_rules_duration_seconds_count"), grown("kubeproxy_sync_partial_proxy_rules_duration_seconds_count"); all == 0 || all != partial {
		t.Errorf("%v syncs, of which %v partial", all, partial)
	}
	for _, name := range []string{"kubeproxy_sync_proxy_rules_service_changes_pending", "kubeproxy_sync_proxy_rules_endpoint_changes_pending"} {
		if value, is := after[name]; !is || value != 0 {
			t.Errorf("%s is %v, and nothing is pending", name, value)
		}
	}
	synced, queued := after["kubeproxy_sync_proxy_rules_last_timestamp_seconds"], after["kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds"]
	if queued < float64(v.Slices[0].Triggered.Unix()) || synced < queued {
		t.Errorf("the last sync ended at %f, the last one asked for was at %f, the change at %s", synced, queued, v.Slices[0].Triggered)
	}
	api := s.control.address.String()
	for _, name := range []string{
		"process_resident_memory_bytes", "go_goroutines",
		`rest_client_requests_total{code="200",host="` + api + `",method="GET"}`,
	} {
		if after[name] == 0 {
			t.Errorf("%s is missing", name)
		}
	}
	for name := range n1.Metrics() {
		if strings.HasPrefix(name, "kubeproxy_") {
			t.Errorf("%s is told at --listen as well", name)
		}
	}

	n1.Restart("--fabric", "direct", "--services", "--kubeconfig", s.control.kubeconfig, "--services-metrics=", "--services-health=127.0.0.1:10300")
	if _, _, err := get(n1.Namespace, "localhost:10249", "/proxyMode"); err == nil {
		t.Error("answered at port 10249, which is switched off")
	}
	if got := ask(10300, "/livez"); !strings.HasPrefix(got, "200 ") {
		t.Errorf("/livez at port 10300: %s", got)
	}
}

// proxyMetrics are those at kube-proxy's port, by names and labels.
func proxyMetrics(t *testing.T, n *cluster.Node) map[string]float64 {
	t.Helper()
	status, text, err := get(n.Namespace, "localhost:10249", "/metrics")
	if err != nil || status != http.StatusOK {
		t.Fatalf("metrics at port 10249: %d, %v", status, err)
	}
	values, err := cluster.Series(text)
	must(t, err)
	return values
}

// TestKubeProxyHasThePorts: where kube-proxy still listens, flatnetd says so, balances
// all the same, and takes over when kube-proxy has gone.
func TestKubeProxyHasThePorts(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	s.apply(s.service("a1", "b1"))
	n1 := s.Node("n1")
	n1.Stop()
	var taken []net.Listener
	must(t, n1.Do(func() error {
		for _, address := range []string{":10256", "127.0.0.1:10249"} {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			taken = append(taken, l)
		}
		return nil
	}))
	t.Cleanup(func() {
		for _, l := range taken {
			l.Close() // it may be closed
		}
	})
	n1.StartAgain()
	n1.WaitReady()
	ports := func() (lines []string) {
		for _, p := range n1.Status().Problems {
			if strings.HasPrefix(p.Object, "--services-") {
				lines = append(lines, p.Object+": "+p.Reason)
				if !strings.Contains(p.Advice, "Services are balanced all the same") || !strings.Contains(p.Advice, "kube-proxy") {
					t.Errorf("advice is %s", p.Advice)
				}
			}
		}
		return lines
	}
	want := []string{
		"--services-health :10256: listening: listen tcp :10256: bind: address already in use",
		"--services-metrics 127.0.0.1:10249: listening: listen tcp 127.0.0.1:10249: bind: address already in use",
	}
	s.Eventually("the problems", func() error {
		if got := ports(); !slices.Equal(got, want) {
			return fmt.Errorf("they are %q", got)
		}
		return nil
	})
	out, err := n1.Flatnetd("status", "--fabric=direct")
	must(t, err)
	t.Log(out)
	s.apply(s.service("a1"))
	s.expect("tcp", s.pod("a2"), at(s.clusterIP(), 80), map[string]string{"a1": "own"})
	for _, l := range taken {
		must(t, l.Close())
	}
	s.Eventually("the end of the problems", func() error {
		if got := ports(); len(got) > 0 {
			return fmt.Errorf("they are %q", got)
		}
		return nil
	})
	if _, text, err := get(n1.Namespace, "localhost:10249", "/proxyMode"); text != "nftables" {
		t.Errorf("/proxyMode: %q, %v", text, err)
	}
	if got := s.says("n1", "/healthz"); got != "200, healthy true, eligible true" {
		t.Errorf("/healthz: %s", got)
	}
}

// TestNodeLeaves: load balancers are told to look for another node while the own one is
// about to go, and that it is well all the same; Services go on.
func TestNodeLeaves(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	s.apply(s.service("a1", "b1"))
	if got := s.says("n1", "/healthz"); got != "200, healthy true, eligible true" {
		t.Errorf("with nodes from a file, /healthz: %s", got)
	}
	for _, n := range s.Nodes {
		s.control.Put(n.Object())
	}
	for _, name := range []string{"n1", "n2"} {
		s.Node(name).Restart("--nodes-file=", "--fabric", "direct", "--services", "--kubeconfig", s.control.kubeconfig)
	}
	expect := func(what, healthz, leaving string) {
		t.Helper()
		s.Eventually(what, func() error {
			if got := s.says("n1", "/healthz"); got != healthz {
				return fmt.Errorf("/healthz: %s", got)
			}
			// One reason to leave may follow another, with the same answer.
			if got := s.Node("n1").Status().Leaving; got != leaving {
				return fmt.Errorf("the status says that it leaves because %q", got)
			}
			return nil
		})
		if got := s.says("n1", "/livez"); got != "200, healthy true" {
			t.Errorf("%s, /livez: %s", what, got)
		}
		if got := s.says("n2", "/healthz"); got != stays {
			t.Errorf("%s, /healthz of another node: %s", what, got)
		}
	}
	balanced := func() {
		t.Helper()
		s.expect("tcp", s.outside(), at(s.node("n1").own, nodePort), map[string]string{"a1": "own", "b1": "n1"})
		s.expect("tcp", s.pod("a2"), at(s.clusterIP(), 80), map[string]string{"a1": "own", "b1": "own"})
	}
	own := s.Node("n1").Object()
	expect("the node to stay", stays, "")
	tainted := own.DeepCopy()
	tainted.Spec.Taints = []v1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Value: "1700000000", Effect: v1.TaintEffectNoSchedule}}
	s.control.Put(tainted)
	expect("the taint", leaves, "its Node has the taint ToBeDeletedByClusterAutoscaler")
	balanced()
	out, err := s.Node("n1").Flatnetd("status", "--fabric=direct")
	must(t, err)
	if !strings.Contains(out, "told to look for another node: its Node has the taint ToBeDeletedByClusterAutoscaler\n") {
		t.Errorf("the status is %s", out)
	}
	s.control.Put(own)
	expect("the end of the taint", stays, "")
	deleted := own.DeepCopy()
	deleted.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)}
	s.control.Put(deleted)
	expect("the deletion", leaves, "its Node is being deleted since 2026-02-03T04:05:06Z")
	balanced()
	// Then the other nodes have no way to its pods any more.
	s.control.Remove(own)
	expect("the Node to be gone", leaves, "its Node is gone")
	s.control.Put(own)
	expect("the Node to come back", stays, "")
}

const (
	stays  = "200, healthy true, eligible true"
	leaves = "503, healthy true, eligible false"
)

// TestLegacyKubeProxy: rules that a kube-proxy has by iptables-legacy are a problem
// while they are there.
func TestLegacyKubeProxy(t *testing.T) {
	t.Parallel()
	const program = "ip6tables-legacy"
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is needed: %v", program, err)
	}
	s := newSite(t, "direct", false)
	n1 := s.Node("n1")
	if _, err := n1.Output(program, "-t", "nat", "-S"); err != nil {
		if !strings.Contains(err.Error(), "can't initialize") {
			t.Fatal(err)
		}
		t.Skipf("the kernel has no table nat of %s: %v", program, err)
	}
	// A resync is when the surroundings are looked at.
	n1.Restart("--fabric", "direct", "--services", "--kubeconfig", s.control.kubeconfig, "--resync", "1s")
	problem := func(want string) {
		t.Helper()
		s.Eventually("problem "+want, func() error {
			for _, p := range n1.Status().Problems {
				if p.Object == "kube-proxy" {
					if want == "" || !strings.HasSuffix(p.Reason, want) || !strings.Contains(p.Advice, "`iptables` is the legacy program") {
						return fmt.Errorf("it is %+v", p)
					}
					return nil
				}
			}
			if want != "" {
				return fmt.Errorf("problems are %v", n1.Status().Problems)
			}
			return nil
		})
	}
	problem("")
	_, err := n1.Output(program, "-t", "nat", "-N", "KUBE-SERVICES")
	must(t, err)
	problem(": ip6tables-legacy chain KUBE-SERVICES of table nat")
	out, err := n1.Flatnetd("status", "--fabric=direct")
	must(t, err)
	t.Log(out)
	_, err = n1.Output(program, "-t", "nat", "-X")
	must(t, err)
	problem("")
}
