package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

func (s Selector) written() string {
	where := s.Namespace
	if where == "" {
		where = "<" + s.Namespaces.String() + ">"
	}
	return where + "/<" + s.Pods.String() + ">"
}

func (r Rule) written() string {
	var peers, ports []string
	if r.AnyPeer {
		peers = append(peers, "any")
	}
	for _, s := range r.Peers {
		peers = append(peers, s.written())
	}
	for _, b := range r.Blocks {
		text := b.CIDR.String()
		for _, e := range b.Except {
			text += "!" + e.String()
		}
		peers = append(peers, text)
	}
	for _, s := range r.Nodes {
		peers = append(peers, nodesText(s))
	}
	if r.AnyPort {
		ports = append(ports, "any")
	}
	for _, p := range r.Ports {
		if p.Name != "" {
			ports = append(ports, p.Protocol.String()+":"+p.Name)
		} else {
			ports = append(ports, fmt.Sprintf("%s:%d-%d", p.Protocol, p.First, p.Last))
		}
	}
	return fmt.Sprintf("%s%s [%s] [%s]", r.Name, r.Action, strings.Join(peers, " "), strings.Join(ports, " "))
}

// text is a policy as the tables have it, a line each: whom it is about, its rules, and
// what is wrong.
func (p *Policy) written() string {
	lines := []string{p.Subject.written()}
	for _, d := range Directions {
		if p.Isolates[d] {
			lines = append(lines, "isolates "+d.String())
		}
		for _, r := range p.Rules[d] {
			lines = append(lines, d.String()+" "+r.written())
		}
	}
	for _, f := range p.Faults {
		lines = append(lines, "fault "+f)
	}
	return strings.Join(lines, "\n")
}

func lines(all ...string) string { return strings.Join(all, "\n") }

func networkPolicy(t *testing.T, spec string) *networking.NetworkPolicy {
	t.Helper()
	o := &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &o.Spec); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestFromNetworkPolicy(t *testing.T) {
	const head = "shop/<>\nisolates ingress\n"
	for _, c := range []struct{ name, spec, want string }{
		{"nothing is said", `{}`, "shop/<>\nisolates ingress"},
		{"types are not said, and there is egress", `{egress: [{}]}`, lines("shop/<>", "isolates ingress", "isolates egress", "egress accept [any] [any]")},
		{"types are empty, and egress is", `{policyTypes: [], egress: []}`, "shop/<>\nisolates ingress"},
		{"egress alone", `{policyTypes: [Egress], ingress: [{}]}`, "shop/<>\nisolates egress"},
		{"ingress alone", `{policyTypes: [Ingress], egress: [{}]}`, "shop/<>\nisolates ingress"},
		{"both", `{policyTypes: [Ingress, Egress]}`, lines("shop/<>", "isolates ingress", "isolates egress")},
		{"a type that is none", `{policyTypes: [Ingress, Both]}`, lines("shop/<>", "isolates ingress", "isolates egress", `fault spec.policyTypes[1]: "Both" is neither Ingress nor Egress: the policy isolates in both directions`)},
		{"whom it is about", `{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: In, values: [a, b]}, {key: old, operator: DoesNotExist}, {key: x, operator: NotIn, values: [no1]}, {key: z, operator: Exists}]}}`,
			"shop/<app=web,!old,tier in (a,b),x notin (no1),z>\nisolates ingress"},
		{"from is empty, ports are empty", `{ingress: [{from: [], ports: []}]}`, head + "ingress accept [any] [any]"},
		{"from is missing", `{ingress: [{ports: [{port: 80}]}]}`, head + "ingress accept [any] [tcp:80-80]"},
		{"pods of the namespace", `{ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`, head + "ingress accept [shop/<app=web>] [any]"},
		{"all pods of the namespace", `{ingress: [{from: [{podSelector: {}}]}]}`, head + "ingress accept [shop/<>] [any]"},
		{"all pods of all namespaces", `{ingress: [{from: [{namespaceSelector: {}}]}]}`, head + "ingress accept [<>/<>] [any]"},
		{"both selectors", `{ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}]}]}`, head + "ingress accept [<team=a>/<app=web>] [any]"},
		{"networks", `{egress: [{to: [{ipBlock: {cidr: 10.0.0.5/8, except: [10.1.0.0/16, 10.0.0.0/8]}}, {ipBlock: {cidr: "2001:db8::/32", except: ["2001:db8:1::/48"]}}]}], policyTypes: [Egress]}`,
			lines("shop/<>", "isolates egress", "egress accept [10.0.0.0/8!10.1.0.0/16!10.0.0.0/8 2001:db8::/32!2001:db8:1::/48] [any]")},
		{"mapped, and with zeros", `{ingress: [{from: [{ipBlock: {cidr: "::ffff:10.0.0.0/104", except: ["::ffff:10.1.0.0/112", 010.002.0.0/16]}}, {ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}]}]}`,
			head + "ingress accept [10.0.0.0/8!10.1.0.0/16!10.2.0.0/16 0.0.0.0/0 ::/0] [any]"},
		{"ports", `{ingress: [{ports: [{port: 80}, {protocol: UDP, port: 53}, {protocol: SCTP}, {port: web}, {port: 8000, endPort: 8080}, {port: 1, endPort: 1}, {}]}]}`,
			head + "ingress accept [any] [tcp:80-80 udp:53-53 sctp:0-65535 tcp:web tcp:8000-8080 tcp:1-1 tcp:0-65535]"},
		{"a network that is none", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}, {ipBlock: {cidr: 10.0.0.0}}, {ipBlock: {cidr: ""}}, {ipBlock: {cidr: "fe80::%eth0/64"}}, {podSelector: {}}]}]}`, head + lines(
			"ingress accept [shop/<>] [any]",
			`fault spec.ingress[0].from[0].ipBlock.cidr: "10.0.0.0/33" is not a network such as 10.0.0.0/8 or 2001:db8::/32`,
			`fault spec.ingress[0].from[1].ipBlock.cidr: "10.0.0.0" is not a network such as 10.0.0.0/8 or 2001:db8::/32`,
			`fault spec.ingress[0].from[2].ipBlock.cidr: "" is not a network such as 10.0.0.0/8 or 2001:db8::/32`,
			`fault spec.ingress[0].from[3].ipBlock.cidr: "fe80::%eth0/64" is not a network such as 10.0.0.0/8 or 2001:db8::/32`)},
		{"exceptions that are none", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [x, 11.0.0.0/16, 10.0.0.0/7, "2001:db8::/32", 10.1.0.0/16]}}]}]}`, head + lines(
			"ingress accept [] [any]",
			`fault spec.ingress[0].from[0].ipBlock.except[0]: "x" is not a network such as 10.0.0.0/8 or 2001:db8::/32`,
			`fault spec.ingress[0].from[0].ipBlock.except[1]: "11.0.0.0/16" is not in 10.0.0.0/8`,
			`fault spec.ingress[0].from[0].ipBlock.except[2]: "10.0.0.0/7" is not in 10.0.0.0/8`,
			`fault spec.ingress[0].from[0].ipBlock.except[3]: "2001:db8::/32" is not in 10.0.0.0/8`)},
		{"peers that are none", `{ingress: [{from: [{}, {ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}`, head + lines(
			"ingress accept [] [any]",
			"fault spec.ingress[0].from[0]: there is neither a podSelector nor a namespaceSelector nor an ipBlock",
			"fault spec.ingress[0].from[1]: there is an ipBlock and a selector, and only one of these can be")},
		{"selectors that are none", `{ingress: [{from: [{podSelector: {matchLabels: {app: "a b"}}}, {namespaceSelector: {matchExpressions: [{key: x, operator: Like}]}, podSelector: {}}]}]}`, head + lines(
			"ingress accept [] [any]",
			`fault spec.ingress[0].from[0].podSelector: "app=a b" cannot be understood: values[0][app]: Invalid value: "a b": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
			`fault spec.ingress[0].from[1].namespaceSelector: "x Like []" cannot be understood: "Like" is not a valid label selector operator`)},
		{"ports that are none", `{egress: [{ports: [{protocol: ICMP}, {port: 0}, {port: 65536}, {port: ""}, {port: web, endPort: 90}, {port: 90, endPort: 80}, {endPort: 80}, {port: 80, endPort: 70000}, {port: 443}]}], policyTypes: [Egress]}`, lines(
			"shop/<>", "isolates egress", "egress accept [any] [tcp:443-443]",
			`fault spec.egress[0].ports[0].protocol: "ICMP" is not one of TCP, UDP and SCTP`,
			"fault spec.egress[0].ports[1].port: 0 is not a port, from 1 to 65535",
			"fault spec.egress[0].ports[2].port: 65536 is not a port, from 1 to 65535",
			`fault spec.egress[0].ports[3].port: "" is neither a number nor a name`,
			`fault spec.egress[0].ports[4].endPort: 90 is the end of a range that begins with a name, "web"`,
			"fault spec.egress[0].ports[5].endPort: 80 is before 90, where the range begins",
			"fault spec.egress[0].ports[6].endPort: 80 is the end of a range that does not begin: there is no port",
			"fault spec.egress[0].ports[7].endPort: 70000 is not a port, from 1 to 65535")},
		{"no port is left", `{ingress: [{ports: [{port: 0}]}]}`, head + "ingress accept [any] []\nfault spec.ingress[0].ports[0].port: 0 is not a port, from 1 to 65535"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := FromNetworkPolicy(networkPolicy(t, c.spec))
			if err != nil {
				t.Fatal(err)
			}
			if got := p.written(); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if p.Name != (Name{"shop", "p"}) || p.Tier != Network {
				t.Errorf("it is %v of the tier %v", p.Name, p.Tier)
			}
		})
	}
	p, err := FromNetworkPolicy(networkPolicy(t, `{podSelector: {matchExpressions: [{key: app, operator: In}]}}`))
	if p != nil || err == nil || !strings.HasPrefix(err.Error(), `spec.podSelector: "app In []" cannot be understood: `) {
		t.Errorf("a selector that is none: %v, %v", p, err)
	}
}

func clusterPolicy(t *testing.T, spec string) *apiwatch.ClusterNetworkPolicy {
	t.Helper()
	o := &apiwatch.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &o.Spec); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestFromClusterNetworkPolicy(t *testing.T) {
	const all = "tier: Admin\nsubject: {namespaces: {}}\n"
	const refuses = "fault spec.egress[0]: a rule that was to %s and is not understood refuses everything"
	for _, c := range []struct{ name, spec, want string }{
		{"no rules", all, "<>/<>"},
		{"pods", "tier: Baseline\nsubject: {pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}}", "<team=a>/<app=web>"},
		{"peers", all + `
ingress:
- {name: "x ", action: Deny, from: [{namespaces: {matchLabels: {team: a}}}, {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}
egress:
- {action: Pass, to: [{networks: [10.0.0.0/8, "2001:db8::/32"]}]}
- {action: Accept, to: [{namespaces: {}}]}`, lines("<>/<>",
			"ingress x deny [<team=a>/<> <>/<app=web>] [any]",
			"egress pass [10.0.0.0/8 2001:db8::/32] [any]",
			"egress accept [<>/<>] [any]")},
		{"protocols", all + `
ingress:
- {action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {}}, {udp: {destinationPort: {number: 53}}}, {sctp: {destinationPort: {range: {start: 5, end: 9}}}}, {destinationNamedPort: web}]}`, lines("<>/<>",
			"ingress accept [<>/<>] [tcp:0-65535 udp:53-53 sctp:5-9 tcp:web udp:web sctp:web]")},
		{"what is left out where it accepts", all + `
egress:
- {action: Accept, to: [{nodes: {matchLabels: {zone: a}}}, {domainNames: [example.org]}, {}, {networks: [10.0.0.0/33, 10.0.0.0/8]}, {namespaces: {}, networks: [10.0.0.0/8]}], protocols: [{}, {tcp: {destinationPort: {}}}, {tcp: {destinationPort: {range: {start: 9, end: 5}}}}, {tcp: {destinationPort: {number: 80}}}]}`, lines("<>/<>",
			"egress accept [10.0.0.0/8 nodes with zone=a] [tcp:80-80]",
			`fault spec.egress[0].to[1].domainNames: ["example.org"]: peers by the names of domains are not supported: give networks`,
			"fault spec.egress[0].to[2]: there is nothing that is known here to select by",
			`fault spec.egress[0].to[3].networks[0]: "10.0.0.0/33" is not a network such as 10.0.0.0/8 or 2001:db8::/32`,
			"fault spec.egress[0].to[4]: there are several kinds of peers, and only one can be",
			"fault spec.egress[0].protocols[0]: there is no protocol that is known here",
			"fault spec.egress[0].protocols[1].tcp.destinationPort.number: 0 is not a port, from 1 to 65535",
			"fault spec.egress[0].protocols[2].tcp.destinationPort.range.end: 5 is before 9, where the range begins")},
		{"nodes", all + "egress: [{action: Deny, to: [{nodes: {}}, {nodes: {matchLabels: {zone: a}}}], protocols: [{tcp: {}}]}]", lines("<>/<>",
			"egress deny [all nodes nodes with zone=a] [tcp:0-65535]")},
		{"nodes of ingress", all + "ingress: [{action: Accept, from: [{nodes: {}}]}]", lines("<>/<>",
			"ingress accept [] [any]", `fault spec.ingress[0].from[0].nodes: "": nodes are peers of egress only`)},
		{"a selector of nodes that is none", all + "egress: [{action: Deny, to: [{nodes: {matchExpressions: [{key: x, operator: Like}]}}]}]", lines("<>/<>",
			"egress deny [any] [any]", `fault spec.egress[0].to[0].nodes: "x Like []" cannot be understood: "Like" is not a valid label selector operator`, fmt.Sprintf(refuses, "deny"))},
		{"what denies", all + "egress: [{action: Deny, to: [{domainNames: [example.org]}], protocols: [{tcp: {}}]}]", lines("<>/<>",
			"egress deny [any] [any]", `fault spec.egress[0].to[0].domainNames: ["example.org"]: peers by the names of domains are not supported: give networks`, fmt.Sprintf(refuses, "deny"))},
		{"what passes", all + "egress: [{action: Pass, to: [{namespaces: {}}], protocols: [{}]}]", lines("<>/<>",
			"egress deny [any] [any]", "fault spec.egress[0].protocols[0]: there is no protocol that is known here", fmt.Sprintf(refuses, "pass"))},
		{"what does something else", all + "egress: [{action: Log, to: [{namespaces: {}}]}]", lines("<>/<>",
			"egress deny [any] [any]", `fault spec.egress[0].action: "Log" is not one of Accept, Deny and Pass`, fmt.Sprintf(refuses, "deny"))},
		{"without peers", all + "egress: [{action: Accept, to: []}]", lines("<>/<>",
			"egress accept [] [any]", "fault spec.egress[0].to: there are no peers, and there have to be some")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := FromClusterNetworkPolicy(clusterPolicy(t, c.spec))
			if err != nil {
				t.Fatal(err)
			}
			if got := p.written(); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if p.Name != (Name{"", "p"}) || (p.Tier == Baseline) != strings.Contains(c.spec, "Baseline") {
				t.Errorf("it is %v of the tier %v", p.Name, p.Tier)
			}
		})
	}
	if p, err := FromClusterNetworkPolicy(clusterPolicy(t, all+"priority: 70")); err != nil || p.Priority != 70 {
		t.Errorf("the priority is that of %v, %v", p, err)
	}
	for _, c := range []struct{ spec, want string }{
		{"subject: {namespaces: {}}", `spec.tier: "" is neither Admin nor Baseline`},
		{"tier: Admin", "spec.subject: there is nothing that is known here to select by"},
		{"tier: Admin\nsubject: {pods: {namespaceSelector: {}, podSelector: {matchExpressions: [{key: x, operator: Like}]}}}", `spec.subject.pods.podSelector: "x Like []" cannot be understood: "Like" is not a valid label selector operator`},
		{"tier: Admin\nsubject: {namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}", "spec.subject: there are namespaces and pods, and only one of these can be"},
	} {
		if p, err := FromClusterNetworkPolicy(clusterPolicy(t, c.spec)); p != nil || err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, %v", c.spec, p, err)
		}
	}
}

func TestFromPod(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", UID: "u", Labels: map[string]string{"app": "web"}, CreationTimestamp: metav1.NewTime(created)},
		Spec: v1.PodSpec{
			NodeName: "n1",
			InitContainers: []v1.Container{
				{Ports: []v1.ContainerPort{{Name: "once", ContainerPort: 1}}},
				{RestartPolicy: &always, Ports: []v1.ContainerPort{{Name: "metrics", ContainerPort: 9000}}},
			},
			Containers: []v1.Container{{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: 80}, {ContainerPort: 81}, {Name: "dns", ContainerPort: 53, Protocol: v1.ProtocolUDP}, {Name: "odd", ContainerPort: 5, Protocol: "ICMP"}}}},
		},
		Status: v1.PodStatus{Phase: v1.PodRunning, PodIP: "10.0.0.1", PodIPs: []v1.PodIP{{IP: "::ffff:10.0.0.1"}, {IP: "2001:db8::1"}, {IP: "x"}}},
	}
	got := FromPod(pod)
	if text := fmt.Sprintln(got.Name, got.UID, got.Labels, got.Addresses, got.Ports, got.Node, got.Created.Equal(created)); text != "shop/web-1 u app=web [10.0.0.1 2001:db8::1] [{metrics tcp 9000} {web tcp 80} {dns udp 53}] n1 true\n" {
		t.Error(text)
	}
	pod.Status.PodIPs = nil
	if got := FromPod(pod); fmt.Sprint(got.Addresses) != "[10.0.0.1]" {
		t.Errorf("with an address alone: %v", got.Addresses)
	}
	pod.Status.PodIP = ""
	if got := FromPod(pod); got == nil || got.Addresses != nil {
		t.Errorf("without an address: %v", got)
	}
	for _, phase := range []v1.PodPhase{v1.PodPending, v1.PodRunning, v1.PodUnknown, "", v1.PodSucceeded, v1.PodFailed} {
		pod.Status.Phase = phase
		if is := FromPod(pod) != nil; is == slices.Contains([]v1.PodPhase{v1.PodSucceeded, v1.PodFailed}, phase) {
			t.Errorf("%s: there is one: %v", phase, is)
		}
	}
	pod.Status.Phase, pod.Spec.HostNetwork = v1.PodRunning, true
	if got := FromPod(pod); got != nil {
		t.Errorf("of the host's network: %v", got)
	}
}

func TestFromNamespace(t *testing.T) {
	n := FromNamespace(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}}})
	if n.Name != "shop" || n.Labels.String() != "team=a" {
		t.Error(n)
	}
}
