package policy_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

const (
	denyIngress = "{podSelector: {}, policyTypes: [Ingress]}"
	denyEgress  = "{podSelector: {}, policyTypes: [Egress]}"
)

// Who may talk to whom: ingress, egress, ports by number and by name, on one node and
// between nodes; and that the node itself and the pod itself always pass.
func TestWhoReachesWhom(t *testing.T) {
	s := newSite(t, cluster.Dual, 2)
	n1, n2 := s.Node("n1"), s.Node("n2")
	web := s.start(n1, "shop", "web", "app: web")
	near := s.start(n1, "shop", "near", "app: client")
	far := s.start(n2, "shop", "far", "app: client")
	stranger := s.start(n2, "other", "stranger", "app: client")
	for _, port := range []uint16{80, 81} {
		web.Namespace.ServeLines(t, port)
	}
	far.Namespace.ServeLines(t, 80)
	everybody := []*cluster.Pod{near, far, stranger}
	for _, p := range everybody {
		s.reached("without policies", p.Namespace, web, 80)
	}

	s.write("deny", policy("shop", "deny", denyIngress))
	for _, p := range everybody {
		s.refused("denied", p.Namespace, web, 80)
	}
	s.reached("kubelet's probes", n1.Namespace, web, 80)
	s.reached("itself", web.Namespace, web, 80)
	s.refused("another node", n2.Namespace, web, 80)

	s.write("allow", policy("shop", "allow", "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]}"))
	s.reached("allowed", near.Namespace, web, 80)
	s.reached("allowed", far.Namespace, web, 80)
	s.refused("another port", near.Namespace, web, 81)
	s.refused("another namespace", stranger.Namespace, web, 80)

	s.write("allow", policy("shop", "allow", "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}], ports: [{port: 80, endPort: 90}]}]}"))
	s.reached("its namespace is allowed", stranger.Namespace, web, 81)
	s.refused("not any more", near.Namespace, web, 80)

	// Both ends have a say: web may not begin anything, and is answered all the same.
	s.write("deny", policy("shop", "deny", denyEgress))
	s.write("allow", policy("shop", "allow", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}"))
	s.reached("answers are no egress", stranger.Namespace, web, 80)
	s.refused("egress", web.Namespace, far, 80)
	s.write("allow", policy("shop", "allow", fmt.Sprintf("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: %s/32}}, {ipBlock: {cidr: \"%s/128\"}}]}]}", far.Address(false), far.Address(true))))
	s.reached("egress to a network", web.Namespace, far, 80)

	// A cluster's policy overrules.
	s.write("wide", `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: wide}
spec: {tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}
`)
	s.refused("denied by the cluster's", web.Namespace, far, 80)
	s.write("wide", "")
	s.write("deny", "")
	s.write("allow", "")
	s.reached("without policies again", web.Namespace, far, 80)
}

// talk is a connection that says something now and then.
type talk struct {
	net.Conn
	lines *bufio.Reader
}

func (s *site) talk(from, to *cluster.Pod, ipv6 bool, port uint16) *talk {
	s.t.Helper()
	c, err := dial(from.Namespace, to.Address(ipv6), port, 10*time.Second)
	must(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	k := &talk{c, bufio.NewReader(c)}
	must(s.t, k.say("hello", 10*time.Second))
	return k
}

// say waits for the answer to a line.
func (k *talk) say(text string, timeout time.Duration) error {
	if _, err := fmt.Fprintln(k, text); err != nil {
		return err
	}
	if err := k.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	answer, err := k.lines.ReadString('\n')
	if err == nil && answer != text+"\n" {
		err = fmt.Errorf("answered %q", answer)
	}
	return err
}

// A connection that a change forbids ends, whoever of both sends; all others go on.
func TestWhatIsForbiddenEnds(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("ipv6=%v", ipv6), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, cluster.Dual, 2)
			n1, n2 := s.Node("n1"), s.Node("n2")
			web := s.start(n1, "shop", "web", "app: web")
			good, bad := s.start(n2, "shop", "good", "app: good"), s.start(n2, "shop", "bad", "app: bad")
			web.Namespace.ServeLines(t, 80)
			good.Namespace.ServeLines(t, 80)
			stays, ends := s.talk(good, web, ipv6, 80), s.talk(bad, web, ipv6, 80)
			own := s.talk(web, good, ipv6, 80)
			s.Eventually("packets to take the path that they are to take", func() error {
				for _, k := range []*talk{stays, ends, own} {
					must(t, k.say("and so on", 10*time.Second))
				}
				if packets := n1.Metrics()[`flatnet_fastpath_packets_total{result="hit"}`]; packets == 0 && s.Datapath == "ebpf" {
					return errors.New("none has taken the fast path")
				}
				return nil
			})
			s.write("deny", policy("shop", "deny", "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: good}}}]}]}"))
			s.Eventually("the end of what is forbidden", func() error {
				if err := ends.say("still?", unanswered); err == nil {
					return errors.New("it is answered")
				}
				return nil
			})
			// Another flatnetd does not forget it.
			n1.Restart()
			s.Eventually("what has ended stays in mind", func() error {
				text, err := n1.Output("nft", "list", "set", "inet", "flatnet-policy", "ended"+map[bool]string{false: "4", true: "6"}[ipv6])
				if err == nil && !strings.Contains(text, bad.Address(ipv6).String()) {
					err = errors.New(text)
				}
				return err
			})
			// The label makes the other one forbidden as well.
			must(t, stays.say("still!", 10*time.Second))
			must(t, own.say("its own connections go on", 10*time.Second))
			if err := ends.say("no", unanswered); err == nil {
				t.Error("what has ended is answered again")
			}
			s.pod(good, "app: bad")
			s.Eventually("the end of what a label forbids", func() error {
				if err := stays.say("still?", unanswered); err == nil {
					return errors.New("it is answered")
				}
				return nil
			})
			must(t, own.say("its own connections go on", 10*time.Second))
			s.pod(good, "app: good")
			s.reached("allowed again", good.Namespace, web, 80)
		})
	}
}

// A new pod is closed from its ADD until its rules are in place, with the agent and
// without; a pod of a namespace without policies never is.
func TestNewPods(t *testing.T) {
	s := newSite(t, cluster.Dual, 1)
	n := s.Node("n1")
	client := s.start(n, "other", "client", "app: client")
	s.write("deny", policy("shop", "deny", denyIngress))
	s.Eventually("the list of closed namespaces", func() error {
		text, err := os.ReadFile(s.list(n))
		if err == nil && !strings.Contains(string(text), "shop") {
			err = fmt.Errorf("%s", text)
		}
		return err
	})

	// Nothing is known of it: closed.
	web := n.Prepare("shop", "web")
	must(t, web.Add())
	web.Namespace.ServeLines(t, 80)
	s.refused("unknown", client.Namespace, web, 80)
	s.pod(web, "app: web")
	s.write("allow", policy("shop", "allow", "{podSelector: {matchLabels: {app: web}}, ingress: [{}]}"))
	s.reached("known", client.Namespace, web, 80)

	// The API knows it before it is attached, and it is opened.
	free := n.Prepare("shop", "free")
	s.pod(free, "app: web")
	must(t, free.Add())
	free.Namespace.ServeLines(t, 80)
	s.reached("known before", client.Namespace, free, 80)

	// Without an agent.
	n.Kill()
	s.reached("what runs keeps its rules", client.Namespace, web, 80)
	late, other := n.Prepare("shop", "late"), n.Prepare("other", "late")
	must(t, late.Add())
	must(t, other.Add())
	late.Namespace.ServeLines(t, 80)
	other.Namespace.ServeLines(t, 80)
	s.refused("without an agent", client.Namespace, late, 80)
	s.reached("without an agent, in a namespace without policies", client.Namespace, other, 80)
	s.pod(late, "app: web")
	n.StartAgain()
	n.WaitReady()
	s.reached("with an agent again", client.Namespace, late, 80)
	if refused := n.Metrics()[`flatnet_policy_early_packets_total{direction="ingress"}`]; refused == 0 {
		t.Error("what was refused of new pods is not counted")
	}
	var early struct{ RefusedEarly map[string]uint64 }
	answer, err := n.Flatnetd("status", "policies", "-o", "json")
	must(t, err)
	must(t, json.Unmarshal([]byte(answer), &early))
	if early.RefusedEarly["ingress"] == 0 || early.RefusedEarly["egress"] != 0 {
		t.Errorf("JSON: %s", answer)
	}
	if answer, err = n.Flatnetd("status", "policies"); err != nil || !strings.Contains(answer, "refused of new pods, before their rules were in place: ") {
		t.Errorf("status: %v\n%s", err, answer)
	}

	// Without an agent, and open.
	n.Restart(s.flags(n, "--policies-without-agent", "open")...)
	s.Eventually("the list", func() error {
		if text, _ := os.ReadFile(s.list(n)); !strings.Contains(string(text), `"open"`) {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	n.Kill()
	open := n.Prepare("shop", "open")
	must(t, open.Add())
	open.Namespace.ServeLines(t, 80)
	s.reached("without an agent, open", client.Namespace, open, 80)
	n.StartAgain()
	n.WaitReady()
	s.refused("unknown, with an agent", client.Namespace, open, 80)

	// Without policies at all.
	n.Restart("--fabric", "direct", "--policies-file", s.list(n))
	s.reached("without --policies", client.Namespace, open, 80)
	if text, err := n.Output("nft", "list", "tables"); err != nil || strings.Contains(text, "policy") || strings.Contains(text, "closed") {
		t.Errorf("left are %s, %v", text, err)
	}
}

// A policy that cannot be understood any more holds as it was, and is named. One with a
// type that nobody knows isolates in both directions.
func TestPolicyThatBecomesUnreadable(t *testing.T) {
	s := newSite(t, cluster.Dual, 1)
	n := s.Node("n1")
	web, client := s.start(n, "shop", "web", "app: web"), s.start(n, "other", "client", "app: client")
	web.Namespace.ServeLines(t, 80)
	client.Namespace.ServeLines(t, 80)
	s.write("deny", policy("shop", "deny", denyIngress))
	s.refused("denied", client.Namespace, web, 80)
	named := func(texts ...string) {
		t.Helper()
		s.Eventually("the problem", func() error {
			answer, err := n.Flatnetd("status")
			for _, text := range texts {
				if err == nil && !strings.Contains(answer, text) {
					err = fmt.Errorf("no %q in\n%s", text, answer)
				}
			}
			return err
		})
	}
	s.write("deny", policy("shop", "deny", "{podSelector: {matchLabels: {app: a b}}, policyTypes: [Ingress]}"))
	named("NetworkPolicy shop/deny", "spec.podSelector", "what it said before is in force", "[policy-fault]")
	s.refused("with a selector that is none", client.Namespace, web, 80)
	s.write("deny", policy("shop", "deny", "{podSelecter: {}, policyTypes: [Ingress]}"))
	named("deny.yaml: document 1: ", "the 1 objects read before stay")
	s.refused("with a misspelt field", client.Namespace, web, 80)
	s.write("deny", policy("shop", "deny", "{podSelector: {}, policyTypes: [ingress]}"))
	named("NetworkPolicy shop/deny", `spec.policyTypes[0]: "ingress" is neither Ingress nor Egress`, "[policy-fault]")
	s.refused("with a type that is none", client.Namespace, web, 80)
	s.refused("with a type that is none", web.Namespace, client, 80)
	s.write("deny", policy("shop", "deny", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}"))
	s.reached("mended", client.Namespace, web, 80)
}

// What somebody else takes from the rules comes back, and nothing is refused meanwhile
// that is allowed.
func TestFlushedRulesComeBack(t *testing.T) {
	s := newSite(t, cluster.IPv4, 1)
	n := s.Node("n1")
	web, client := s.start(n, "shop", "web", "app: web"), s.start(n, "shop", "client", "app: client")
	web.Namespace.ServeLines(t, 80)
	web.Namespace.ServeLines(t, 81)
	s.write("some", policy("shop", "some", "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}"))
	s.refused("before", client.Namespace, web, 81)
	goes := s.talk(client, web, false, 80)
	for _, command := range []string{"flush ruleset", "delete table inet flatnet-policy", "flush chain inet flatnet-policy forward", "flush map inet flatnet-policy ingress4"} {
		if _, err := n.Output("nft", strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
		s.Eventually("the repair of "+command, func() error {
			text, err := n.Output("nft", "list", "map", "inet", "flatnet-policy", "ingress4")
			if err == nil && !strings.Contains(text, web.Address(false).String()) {
				err = errors.New(text)
			}
			return err
		})
		s.refused("after "+command, client.Namespace, web, 81)
		must(t, goes.say("on", 10*time.Second))
	}
	if n.Repairs("policies") == 0 {
		t.Error("no repair is counted")
	}
}

// What the person on call asks.
func TestWhy(t *testing.T) {
	s := newSite(t, cluster.Dual, 2, "--log-drops")
	n1, n2 := s.Node("n1"), s.Node("n2")
	web, client := s.start(n1, "shop", "web", "app: web"), s.start(n2, "shop", "client", "app: client")
	web.Namespace.ServeLines(t, 80)
	s.write("some", policy("shop", "some", "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}]}]}"))
	s.refused("another port", client.Namespace, web, 81)
	s.reached("the port", client.Namespace, web, 80)
	// Contains waits until an answer has a text.
	contains := func(n *cluster.Node, command string, texts ...string) {
		t.Helper()
		s.Eventually(command, func() error {
			words := strings.Fields(command)
			answer, err := n.Flatnetd(words[0], words[1:]...)
			for _, text := range texts {
				if err == nil && !strings.Contains(answer, text) {
					err = fmt.Errorf("no %q in\n%s", text, answer)
				}
			}
			return err
		})
	}
	contains(n1, "policy explain shop/client shop/web 80", "shop/client to shop/web, port 80/tcp: allowed by this node's end", fmt.Sprintf("ingress of shop/web %s", web.Address(false)), "allows  NetworkPolicy shop/some, ingress rule 1", "on node n2")
	contains(n1, "policy explain shop/client shop/web http", "port 80/tcp, which is http: allowed by this node's end", "the kernel's rules were compared with this: they are the same")
	if answer, err := n1.Flatnetd("policy", "explain", "shop/client", "shop/web", "htp/udp"); err == nil || !strings.Contains(answer+err.Error(), "pod shop/web has no port htp/udp: its ports with a name are http/tcp (80)") {
		t.Errorf("a port that there is not: %s, %v", answer, err)
	}
	contains(n1, "policy explain shop/client shop/web 81", "REFUSED", "no policy that selects the pod allows it")
	contains(n1, "policy explain "+client.Address(true).String()+" shop/web icmpv6", "REFUSED")
	contains(n2, "policy explain shop/client shop/web 81", "allows  no policy is about it", "on node n1")
	contains(n1, "status policies", "shop/web", "ingress: the rest is refused", "by NetworkPolicy shop/some", "accept from pods in shop: http/tcp")
	s.write("idle", policy("shop", "idle", "{podSelector: {matchLabels: {app: none}}}"))
	contains(n1, "status policies", "NetworkPolicy shop/idle selects no pod of the cluster")
	s.write("idle", "")
	contains(n1, "status", "policies", "1 of 1 select 1 of 1 pods here, rules as wanted")
	s.Eventually("the log of what is refused", func() error {
		_ = tries(client.Namespace, web.Address(false), 81, unanswered)
		if line := `msg="refused by policies" node=n1 direction=ingress from=shop/client to=shop/web protocol=tcp port=81`; !strings.Contains(n1.Log(), line) {
			return errors.New("no " + line)
		}
		return nil
	})
	var all struct {
		Pods []struct {
			Pod        string
			Directions []struct{ Refused uint64 }
		}
	}
	answer, err := n1.Flatnetd("status", "policies", "-o", "json")
	must(t, err)
	must(t, json.Unmarshal([]byte(answer), &all))
	if len(all.Pods) != 1 || all.Pods[0].Pod != "shop/web" || all.Pods[0].Directions[0].Refused == 0 {
		t.Errorf("JSON: %s", answer)
	}
	if n := n1.Metrics()[`flatnet_policy_refused_packets_total{direction="ingress",namespace="shop",pod="web"}`]; n == 0 {
		t.Error("no refused packet in the metrics")
	}
	s.write("broken", policy("shop", "broken", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}"))
	contains(n1, "status", "NetworkPolicy shop/broken", "10.0.0.0/33", "[policy-fault]")
	web.Delete()
	s.Eventually("the end of the counter", func() error {
		text, err := n1.Output("nft", "list", "set", "inet", "flatnet-policy", "refused-ingress4")
		if err == nil && strings.Contains(text, "packets") {
			err = errors.New(text)
		}
		return err
	})
	answer, err = n1.Flatnetd("cleanup")
	if err == nil {
		t.Errorf("cleanup beside a running flatnetd: %s", answer)
	}
	n1.Stop()
	answer, err = n1.Flatnetd("cleanup", "--policies-file", s.list(n1))
	if err != nil || !strings.Contains(answer, "nftables table inet flatnet-policy") || !strings.Contains(answer, "list of closed namespaces") {
		t.Errorf("cleanup: %v\n%s", err, answer)
	}
}

// What is said of nodes by their labels is about their addresses, and changes with both.
func TestNodesArePeers(t *testing.T) {
	s := newSite(t, cluster.Dual, 2)
	n1, n2 := s.Node("n1"), s.Node("n2")
	web := s.start(n1, "shop", "web", "app: web")
	host := &cluster.Pod{Addresses: n2.Addresses} // of the host's network
	n2.Namespace.ServeLines(t, 9090)
	s.reached("without policies", web.Namespace, host, 9090)
	node := func(zone string, addresses ...netip.Addr) {
		text := "apiVersion: v1\nkind: Node\nmetadata: {name: n2, labels: {zone: " + zone + "}}\nstatus:\n  addresses:\n  - {type: Hostname, address: n2}\n"
		for _, a := range addresses {
			text += fmt.Sprintf("  - {type: InternalIP, address: %q}\n", a)
		}
		s.write("node", text)
	}
	node("a", n2.Addresses...)
	s.write("wide", `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: wide}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {zone: a}}}]}]}
`)
	s.refused("a node of the zone", web.Namespace, host, 9090)
	s.Eventually("why", func() error {
		answer, err := n1.Flatnetd("policy", "explain", "shop/web", n2.Addresses[0].String(), "9090")
		for _, text := range []string{"REFUSED", "ClusterNetworkPolicy wide, egress rule 1", "is an address of node n2", "they are the same"} {
			if err == nil && !strings.Contains(answer, text) {
				err = fmt.Errorf("no %q in\n%s", text, answer)
			}
		}
		return err
	})
	node("b", n2.Addresses...)
	s.reached("it is in another zone", web.Namespace, host, 9090)
	node("a", n2.Addresses[0])
	s.refused("one of its addresses", web.Namespace, &cluster.Pod{Addresses: n2.Addresses[:1]}, 9090)
	s.reached("that is not another one", web.Namespace, &cluster.Pod{Addresses: n2.Addresses[1:]}, 9090)
	s.write("node", "")
	s.reached("without the node", web.Namespace, host, 9090)
}

// What a node sends on in somebody else's name, as IPVS does, is not the node's own.
func TestSentOnByTheNode(t *testing.T) {
	s := newSite(t, cluster.Dual, 2)
	n1, n2 := s.Node("n1"), s.Node("n2")
	web, far := s.start(n1, "shop", "web", "app: web"), s.start(n2, "shop", "far", "app: far")
	for _, ipv6 := range []bool{false, true} {
		var socket *net.UDPConn
		must(t, web.Do(func() (err error) {
			socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(web.Address(ipv6), 0)))
			return err
		}))
		t.Cleanup(func() { socket.Close() })
		at := socket.LocalAddr().(*net.UDPAddr).AddrPort()
		received := func(from netip.Addr, timeout time.Duration) error {
			if err := n1.SendAs(from, at, "hello"); err != nil {
				return err
			}
			must(t, socket.SetReadDeadline(time.Now().Add(timeout)))
			for buffer := make([]byte, 16); ; {
				_, source, err := socket.ReadFromUDPAddrPort(buffer)
				if err != nil || source.Addr() == from {
					return err
				}
			}
		}
		s.Eventually("a datagram without policies", func() error { return received(far.Address(ipv6), time.Second) })
		s.write("deny", policy("shop", "deny", denyIngress))
		s.Eventually("the end of datagrams", func() error {
			if received(far.Address(ipv6), unanswered) == nil {
				return errors.New("it is received")
			}
			return nil
		})
		must(t, received(n1.Addresses[map[bool]int{true: 1}[ipv6]], 10*time.Second)) // the node's own
		s.write("deny", "")
		s.Eventually("a datagram without policies again", func() error { return received(far.Address(ipv6), time.Second) })
	}
}
