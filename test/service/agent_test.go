package service_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// TestAPIServerAway: balancing goes on without the API server, also on a node whose
// flatnetd starts meanwhile, and what has changed is caught up with.
func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	s.apply(s.service("a1", "b1"))
	to := at(s.clusterIP(), 80)
	l := startLoad(to, s.outside(), s.pod("a2"), s.node("n1"))
	s.control.Stop()
	n1 := s.Node("n1")
	s.Eventually("flatnetd to say that the API server is gone", func() error {
		status := n1.Status()
		if status.Ready || !strings.Contains(fmt.Sprint(status.Problems), "source of Services") {
			return fmt.Errorf("ready %t, problems %v", status.Ready, status.Problems)
		}
		return nil
	})
	l.after(t, 100)
	l.end(t)
	// What somebody damages is repaired all the same.
	_, err := n1.Output("nft", "flush chain ip flatnet-services prerouting")
	must(t, err)
	s.Eventually("the repair", func() error {
		out, err := n1.Output("nft", "list chain ip flatnet-services prerouting")
		if err == nil && !strings.Contains(out, "jump dispatch") {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	})
	l = startLoad(to, s.outside(), s.pod("a2"), s.node("n1"))
	n1.Kill()
	n1.StartAgain()
	s.Eventually("the new flatnetd to answer", func() error {
		_, err := n1.TryStatus()
		return err
	})
	l.after(t, 100)
	s.control.put(s.service("a1"))
	s.control.begin(t)
	for _, n := range s.Nodes {
		n.WaitReady()
	}
	s.reached()
	l.after(t, 20)
	before := s.servers["b1"].connections()
	l.after(t, 100)
	if n := s.servers["b1"].connections() - before; n > 0 {
		t.Errorf("%d connections reached b1, which is gone", n)
	}
	l.end(t)
}

// TestManyChanges: a thousand changes of endpoints a second, or as many as the machine
// is able to make, are followed in few syncs, and the last one counts.
func TestManyChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	var all []service.Service
	for i := range 50 {
		all = append(all, service.Service{
			Name: service.Name{Namespace: "many", Name: fmt.Sprint(i)}, Ports: []service.Port{{Name: "tcp", Protocol: service.TCP, Port: 80}},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 97, 0, byte(i)})}, Slices: s.service("a1", "b1").Slices,
		})
	}
	s.apply(append(all, s.service("a1", "b1"))...)
	n1 := s.Node("n1")
	const full, partial = `flatnet_service_sync_duration_seconds_count{kind="full"}`, `flatnet_service_sync_duration_seconds_count{kind="partial"}`
	before := n1.Metrics()
	l := startLoad(at(s.clusterIP(), 80), s.pod("a2"))
	const changes, perSecond = 3000, 1000
	begin := time.Now()
	for i := range changes {
		v := all[i%len(all)]
		v.Slices = []service.Slice{v.Slices[0]}
		v.Slices[0].Triggered = time.Now()
		v.Slices[0].Endpoints = append(v.Slices[0].Endpoints[:1:1], service.Endpoint{Address: netip.AddrFrom4([4]byte{10, 250, byte(i >> 8), byte(i)}), Ready: true, Serving: true})
		s.control.put(v)
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / perSecond)))
	}
	took := time.Since(begin)
	behind := time.Now()
	s.reached()
	lag := time.Since(behind)
	out, err := n1.Output("nft", "list map ip flatnet-services endpoints-tcp")
	must(t, err)
	for i := changes - len(all); i < changes; i++ {
		if last := fmt.Sprintf("10.250.%d.%d . 8080", i>>8, i&0xff); !strings.Contains(out, last) {
			t.Errorf("the last change, to %s, is not there", last)
		}
	}
	after := n1.Metrics()
	syncs := after[full] + after[partial] - before[full] - before[partial]
	latency := (after["flatnet_service_programming_duration_seconds_sum"] - before["flatnet_service_programming_duration_seconds_sum"]) /
		(after["flatnet_service_programming_duration_seconds_count"] - before["flatnet_service_programming_duration_seconds_count"])
	t.Logf("%d changes in %s were %.0f syncs; a change took %.0f ms to its rule; all three nodes had the last %s later",
		changes, took.Round(time.Millisecond), syncs, latency*1000, lag.Round(time.Millisecond))
	// Between two there is a pause, so that there are no more than fit in; these are
	// those that a change of the node's surroundings or a repair may add.
	const pause, others = 5 * time.Millisecond, 10
	if most := float64((took+lag)/pause + others); syncs > most {
		t.Errorf("%.0f syncs, where %.0f fit in", syncs, most)
	}
	l.end(t)
}

// TestSwitchedOff: without --services nothing is left, and with it everything is
// there again; cleanup removes it as well.
func TestSwitchedOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	s.apply(s.service("a1", "b1"))
	n1 := s.Node("n1")
	tables := func() string {
		t.Helper()
		out, err := n1.Output("nft", "list tables")
		must(t, err)
		return out
	}
	if !strings.Contains(tables(), "flatnet-services") {
		t.Fatalf("tables are %s", tables())
	}
	out, err := n1.Flatnetd("status", "--fabric=direct")
	if err != nil || !strings.Contains(out, "Services        2 at 9 addresses and ports, rules as wanted") {
		t.Errorf("status: %s, %v", out, err)
	}
	for flag, want := range map[string]string{"-o=json": `"service": "default/web"`, "--fabric=direct": "default/web:tcp"} {
		if out, err := n1.Flatnetd("status", "services", flag); err != nil || !strings.Contains(out, want) {
			t.Errorf("status services %s: %s, %v", flag, out, err)
		}
	}
	n1.Restart("--fabric", "direct")
	if strings.Contains(tables(), "flatnet-services") {
		t.Errorf("without --services, tables are %s", tables())
	}
	if _, err := agent.AskServices(t.Context(), n1.StateDir); err == nil || !strings.Contains(err.Error(), "runs without --services") {
		t.Errorf("status of Services: %v", err)
	}
	n1.Restart("--fabric", "direct", "--services", "--kubeconfig", s.control.kubeconfig)
	s.reached()
	s.expect("tcp", s.pod("a2"), at(s.clusterIP(), 80), map[string]string{"a1": "own", "b1": "own"})
	n1.Stop()
	if !strings.Contains(tables(), "flatnet-services") {
		t.Error("the end of flatnetd has removed the tables")
	}
	out, err = n1.Flatnetd("cleanup")
	must(t, err)
	if !strings.Contains(out, "removed nftables table ip flatnet-services") || strings.Contains(tables(), "flatnet-services") {
		t.Errorf("cleanup: %s, left: %s", out, tables())
	}
}

// TestProblems: what keeps Services from being reached is said, with what to do, and
// is no longer when it is over.
func TestProblems(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", true)
	s.apply(s.service("a1", "b1"))
	n1 := s.Node("n1")
	// A resync is when the surroundings are looked at.
	n1.Restart("--fabric", "direct", "--services", "--kubeconfig", s.control.kubeconfig, "--resync", "1s")
	problem := func(want string) {
		t.Helper()
		s.Eventually("problem "+want, func() error {
			problems := fmt.Sprint(n1.Status().Problems)
			if !strings.Contains(problems, want) || want == "" && problems != "[]" {
				return fmt.Errorf("problems are %s", problems)
			}
			return nil
		})
	}
	run := func(arguments ...string) {
		t.Helper()
		_, err := n1.Output(arguments[0], arguments[1:]...)
		must(t, err)
	}
	problem("")
	run("nft", "add table ip6 kube-proxy")
	problem("nftables table ip6 kube-proxy")
	run("nft", "delete table ip6 kube-proxy")
	problem("")
	run("ip", "-6", "route", "del", "default")
	problem("no route to fd00:96::1")
	if _, err := ask(n1.Namespace, "tcp", at(s.clusterIP(), 80)); err == nil {
		t.Error("the node reaches a ClusterIP without a route, which is reported as a problem")
	}
	s.expect("tcp", s.pod("a2"), at(s.clusterIP(), 80), map[string]string{"a1": "own", "b1": "own"})
	// As the hint says.
	run("ip", "-6", "route", "add", "fd00:96::/108", "dev", "eth0")
	problem("")
	s.expect("tcp", s.node("n1"), at(s.clusterIP(), 80), map[string]string{"a1": "own", "b1": "own"})
	v := s.service("a1")
	v.Name.Name, v.ClusterIPs = "zz", []netip.Addr{s.clusterIP().Next()}
	s.control.put(v)
	problem("claimed by more than one Service")
	out, err := n1.Flatnetd("status", "--fabric=direct")
	must(t, err)
	t.Log(out)
	status, err := agent.AskServices(t.Context(), n1.StateDir)
	if err != nil || len(status.Conflicts) == 0 || status.Conflicts[0].Losers[0] != "default/zz:tcp" {
		t.Errorf("conflicts are %v, %v", status.Conflicts, err)
	}
	s.control.forget(v.Name)
	problem("")
}

// TestHealthChecks: load balancers learn from a node whether it balances, and
// whether it has endpoints.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	v := s.service("a1")
	v.ExternalLocal, v.HealthCheckPort = true, 31000
	s.apply(v)
	for _, c := range []struct {
		node string
		port uint16
		want int
	}{{"n1", 10256, 200}, {"n2", 10256, 200}, {"n1", 31000, 200}, {"n2", 31000, 503}} {
		if status, _, err := get(s.client.Namespace, at(s.Node(c.node).Addresses[0], c.port).String(), "/healthz"); status != c.want {
			t.Errorf("%s port %d: %d, %v, want %d", c.node, c.port, status, err, c.want)
		}
	}
}

// TestZones: hints keep traffic in the node's zone.
func TestZones(t *testing.T) {
	t.Parallel()
	s := newSite(t, "direct", false)
	text := "nodes:\n"
	for i, n := range s.Nodes {
		text += fmt.Sprintf("- {name: %s, zone: %s, addresses: [%s], podCIDRs: [%s]}\n", n.Name, []string{"left", "right", "right"}[i], n.Addresses[0], n.PodCIDRs[0])
	}
	s.WriteNodesText(text)
	v := s.service("a1", "b1")
	for i := range v.Slices[0].Endpoints {
		v.Slices[0].Endpoints[i].Hints = &service.Hints{Zones: []string{[]string{"left", "right"}[i]}}
	}
	s.apply(v)
	s.Eventually("the zones", func() error {
		for _, n := range s.Nodes {
			status, err := agent.AskServices(t.Context(), n.StateDir)
			if err != nil {
				return err
			}
			for _, p := range status.Ports {
				if len(p.Endpoints) != 1 || !status.Synced {
					return fmt.Errorf("%s has endpoints %s for %s, synced %t", n.Name, p.Endpoints, p.Service, status.Synced)
				}
			}
		}
		return nil
	})
	to := at(s.clusterIP(), 80)
	s.expect("tcp", s.pod("a2"), to, map[string]string{"a1": "own"})
	s.expect("tcp", s.node("n2"), to, map[string]string{"b1": "own"})
	s.expect("udp", s.node("n3"), to, map[string]string{"b1": "own"})
}
