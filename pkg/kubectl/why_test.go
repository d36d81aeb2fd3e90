package kubectl

import (
	"context"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// podOn is a pod of namespace shop that is ready.
func podOn(node, name string, ips ...string) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       v1.PodSpec{NodeName: node, Containers: []v1.Container{{Name: "main"}}},
		Status:     v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, v1.PodIP{IP: ip})
	}
	return p
}

// onTheWay is what the agents of two nodes say where pods web on n1 and db on n2 reach
// each other, by node and command.
func onTheWay() map[string]string {
	return map[string]string{
		"n1 status pods -o json": `{"pods":[{"pod":"shop/web","addresses":["10.1.0.2"]}]}`,
		"n2 status pods -o json": `{"pods":[{"pod":"shop/other","addresses":["10.2.0.9"]},{"pod":"shop/db","addresses":["10.2.0.3"]}]}`,
		"n1 status -o json": `{"node":"n1","ready":true,"problems":[],"peers":[{"name":"n2","mode":"vxlan","ways":[
			{"podCIDR":"10.2.0.0/24","mode":"vxlan","via":"172.30.0.2","link":"flatnet.vx","present":true}]}]}`,
		"n2 status -o json": `{"node":"n2","ready":true,"problems":[],"peers":[{"name":"n1","mode":"direct","ways":[
			{"podCIDR":"10.1.0.0/24","mode":"direct","via":"172.30.0.1","link":"eth0","present":true}]}]}`,
		"n1 policy explain -o json 10.1.0.2 10.2.0.3 5432/tcp": `{"decisions":[{"pod":"shop/web","direction":"egress","allowed":true,"because":"no policy"}],"kernel":{"differs":[]}}`,
		"n2 policy explain -o json 10.1.0.2 10.2.0.3 5432/tcp": `{"decisions":[{"pod":"shop/db","direction":"ingress","allowed":true,"because":"policy p allows"}]}`,
	}
}

// withDataPath is a status of an agent that has a fast path.
func withDataPath(status, path string) string {
	return strings.Replace(status, `"ready":true`, `"ready":true,"fastPath":`+path, 1)
}

func TestWhy(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(l *lab, says map[string]string)
		arguments []string
		exit      int
		want      []string // parts of what is printed
	}{
		"all is well": {exit: exitFine, want: []string{`from shop/web 10.1.0.2 on n1 to shop/db 10.2.0.3 on n2, port 5432/tcp

ok     pod shop/web: runs
ok     pod shop/db: runs
ok     attachment of shop/web on n1: as it was made
ok     attachment of shop/db on n2: as it was made
ok     route from n1 to shop/db: 10.2.0.0/24 by vxlan via 172.30.0.2 dev flatnet.vx
ok     route from n2 to shop/web: 10.1.0.0/24 by direct via 172.30.0.1 dev eth0
ok     policies on n1: they allow port 5432/tcp
ok     policies on n2: they allow port 5432/tcp
ok     node n1: no problems
ok     node n2: no problems

nothing is wrong as far as flatnetd sees`}},
		"fast path": {exit: exitFine, want: []string{"ok     fast path on n1: taken by 1 flow between the pods now\n", "note   fast path on n2: flows take the kernel's path: no tcx\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status -o json"] = withDataPath(says["n1 status -o json"], `{"datapath":"ebpf"}`)
			says["n2 status -o json"] = withDataPath(says["n2 status -o json"], `{"datapath":"kernel","because":"no tcx"}`)
			says["n1 flows -o json --address 10.1.0.2"] = `{"flows":[{"from":"10.1.0.2:1","to":"10.2.0.3:5432","active":true},{"from":"10.1.0.2:2","to":"10.2.0.9:5432","active":true}]}`
		}},
		"no fast path": {exit: exitUnknown, want: []string{"note   fast path on n1: flows take the kernel's path: it is switched off for shop/web\n", "?      fast path on n2: flatnetd of pod flatnetd-n2: "}, change: func(_ *lab, says map[string]string) {
			says["n1 status -o json"] = withDataPath(says["n1 status -o json"], `{"datapath":"ebpf","without":["shop/web"]}`)
			says["n2 status -o json"] = withDataPath(says["n2 status -o json"], `{"datapath":"ebpf"}`)
		}},
		"not yet the fast path": {exit: exitFine, want: []string{"note   fast path on n1: flows take the kernel's path: not at the interface of shop/web: it has a queue\n", "note   fast path on n2: 1 flow between the pods: not yet in both directions\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status pods -o json"] = `{"pods":[{"pod":"shop/web","addresses":["10.1.0.2"],"hostInterface":"veth7"}]}`
			says["n1 status -o json"] = withDataPath(says["n1 status -o json"], `{"datapath":"ebpf","skipped":[{"interface":"veth8","reason":"x"},{"interface":"veth7","reason":"it has a queue"}]}`)
			says["n2 status -o json"] = withDataPath(says["n2 status -o json"], `{"datapath":"ebpf"}`)
			says["n2 flows -o json --address 10.2.0.3"] = `{"flows":[{"from":"10.1.0.2:1","to":"10.2.0.3:5432"}]}`
		}},
		"no flow": {exit: exitFine, want: []string{"note   fast path on n1: no flow between the pods takes it now", "note   fast path on n2: none of the 1 flow with the most bytes is between the pods; 7 more were not looked at\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status -o json"] = withDataPath(says["n1 status -o json"], `{"datapath":"ebpf"}`)
			says["n2 status -o json"] = withDataPath(says["n2 status -o json"], `{"datapath":"ebpf"}`)
			says["n1 flows -o json --address 10.1.0.2"] = `{"flows":[]}`
			says["n2 flows -o json --address 10.2.0.3"] = `{"flows":[{"from":"10.1.0.9:1","to":"10.2.0.3:5432"}],"more":7}`
		}},
		"no pod":           {arguments: []string{"web", "gone"}, exit: exitWrong, want: []string{"\nwrong: pod shop/gone: there is no such pod\n"}},
		"flags at the end": {arguments: []string{"web", "db", "5432/tcp", "-o", "json"}, exit: exitFine, want: []string{`"from": "shop/web 10.1.0.2 on n1",`}},
		"no port":          {arguments: []string{"web", "shop/db"}, exit: exitFine, want: []string{"note   policies: not looked at: no port was given"}},
		"declared port": {arguments: []string{"web", "db"}, exit: exitFine, want: []string{"on n2, port 5432/tcp\n"}, change: func(l *lab, _ map[string]string) {
			db := podOn("n2", "db", "10.2.0.3")
			db.Spec.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 5432}}
			l.server.Put(db)
		}},
		"not attached": {exit: exitWrong, want: []string{"\nwrong: attachment of shop/db on n2: flatnet has not attached it\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 status pods -o json"] = `{"pods":[]}`
		}},
		"damaged": {exit: exitWrong, want: []string{"\nwrong: attachment of shop/web on n1: route missing: 10.1.0.2 dev veth1 is not there\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status pods -o json"] = `{"pods":[{"pod":"shop/web","addresses":["10.1.0.2"],"faults":[{"word":"route missing","reason":"10.1.0.2 dev veth1 is not there"}]}]}`
		}},
		"another address": {exit: exitWrong, want: []string{"\nwrong: attachment of shop/web on n1: Kubernetes says 10.1.0.2, which it has not got: it has 10.1.0.7\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status pods -o json"] = `{"pods":[{"pod":"shop/web","addresses":["10.1.0.7"]}]}`
		}},
		"unknown node": {exit: exitWrong, want: []string{"\nwrong: route from n2 to shop/web: flatnetd on n2 does not know node n1\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 status -o json"] = `{"node":"n2","ready":true,"problems":[],"peers":[]}`
		}},
		"no way": {exit: exitWrong, want: []string{"\nwrong: route from n1 to shop/db: there is no way to podCIDR 10.2.0.0/24 of node n2\n  node n2: has no address [peer-without-address]; wait\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status -o json"] = `{"node":"n1","ready":true,"problems":[{"kind":"peer-without-address","node":"n2","reason":"has no address","advice":"wait"}],"peers":[{"name":"n2","ways":[{"podCIDR":"10.2.0.0/24","mode":""}]}]}`
		}},
		"missing route": {exit: exitWrong, want: []string{"\nwrong: route from n1 to shop/db: the route to podCIDR 10.2.0.0/24 (vxlan via 172.30.0.2 dev flatnet.vx) is not in the kernel\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status -o json"] = strings.Replace(says["n1 status -o json"], `"present":true`, `"present":false`, 1)
		}},
		"probes are answered": {exit: exitFine, want: []string{"ok     route from n1 to shop/db: 10.2.0.0/24 by vxlan via 172.30.0.2 dev flatnet.vx, 0.31 ms there and back\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status -o json"] = strings.Replace(says["n1 status -o json"], `"present":true`, `"present":true,"health":{"state":"ok","sent":20,"roundTripMicroseconds":312,"fullSize":"ok"}`, 1)
		}},
		"probes are lost": {exit: exitWrong, want: []string{"\nwrong: route from n1 to shop/db: 10.2.0.0/24 by vxlan via 172.30.0.2 dev flatnet.vx: probes are lost, all of them\n  node n2: probes are lost [peer-lost]; look at the firewall\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status -o json"] = `{"node":"n1","ready":true,"problems":[{"kind":"peer-lost","node":"n2","reason":"probes are lost","advice":"look at the firewall"}],"peers":[{"name":"n2","ways":[{"podCIDR":"10.2.0.0/24","mode":"vxlan","via":"172.30.0.2","link":"flatnet.vx","present":true,"health":{"state":"lost"}}]}]}`
		}},
		"some are lost": {exit: exitWrong, want: []string{"dev flatnet.vx: 5 of the last 20 probes are lost\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 status -o json"] = strings.Replace(says["n1 status -o json"], `"present":true`, `"present":true,"health":{"state":"lossy","sent":20,"lost":5}`, 1)
		}},
		"large ones are lost": {exit: exitWrong, want: []string{"dev eth0: large packets are lost, and small ones are not\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 status -o json"] = strings.Replace(says["n2 status -o json"], `"present":true`, `"present":true,"health":{"state":"ok","sent":20,"fullSize":"lost"}`, 1)
		}},
		"outside": {exit: exitWrong, want: []string{"\nwrong: route from n2 to shop/web: 10.1.0.2 is in none of the podCIDRs of node n1\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 status -o json"] = strings.Replace(says["n2 status -o json"], "10.1.0.0/24", "10.9.0.0/24", 1)
		}},
		"refused": {exit: exitWrong, want: []string{"ok     policies on n1: they allow", "\nwrong: policies on n2: ingress of shop/db is refused: no rule of policy p\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 policy explain -o json 10.1.0.2 10.2.0.3 5432/tcp"] = `{"decisions":[{"pod":"shop/db","direction":"ingress","allowed":false,"because":"no rule of policy p"}]}`
		}},
		"other rules": {exit: exitWrong, want: []string{"\nwrong: policies on n1: the kernel has other rules: chain x\n"}, change: func(_ *lab, says map[string]string) {
			says["n1 policy explain -o json 10.1.0.2 10.2.0.3 5432/tcp"] = `{"decisions":[],"kernel":{"differs":["chain x"]}}`
		}},
		"closed": {exit: exitWrong, want: []string{"\nwrong: policies on n2: closed until the pod's rules are in place: 10.2.0.3\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 policy explain -o json 10.1.0.2 10.2.0.3 5432/tcp"] = `{"decisions":[],"kernel":{"differs":[],"closed":["10.2.0.3"]}}`
		}},
		"no policies": {exit: exitFine, want: []string{"note   policies on n2: this flatnetd keeps none\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 policy explain -o json 10.1.0.2 10.2.0.3 5432/tcp"] = "!asking flatnetd: policies are not kept by this flatnetd: it runs without --policies"
		}},
		"silent agent": {exit: exitUnknown, want: []string{"\nnothing wrong is seen, but not all could be found out: attachment of shop/db on n2: flatnetd of pod flatnetd-n2: it hides\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 status pods -o json"] = "!it hides"
		}},
		"problems": {exit: exitWrong, want: []string{"\nwrong: node n2: sysctl x: is 0 [sysctl]\n  set it\n"}, change: func(_ *lab, says map[string]string) {
			says["n2 status -o json"] = strings.Replace(says["n2 status -o json"], `"problems":[]`, `"problems":[{"kind":"sysctl","node":"n2","object":"sysctl x","reason":"is 0","advice":"set it"}]`, 1)
		}},
		"no agent": {exit: exitWrong, want: []string{"\nwrong: flatnetd on n2: no flatnetd pod is on it"}, change: func(l *lab, _ map[string]string) { l.server.Remove(agentOn("n2")) }},
		"families": {exit: exitWrong, want: []string{"\nwrong: addresses: the pods have none of one family\n"}, change: func(l *lab, says map[string]string) {
			l.server.Put(podOn("n2", "db", "fd00::3"))
			says["n2 status pods -o json"] = `{"pods":[{"pod":"shop/db","addresses":["fd00::3"]}]}`
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 2)
			l.server.Put(podOn("n1", "web", "10.1.0.2"))
			l.server.Put(podOn("n2", "db", "10.2.0.3"))
			says := onTheWay()
			if c.change != nil {
				c.change(l, says)
			}
			l.server.Execute = func(_ context.Context, e *apiserver.Execution) {
				question := strings.TrimPrefix(e.Pod, "flatnetd-") + strings.TrimPrefix(strings.Join(e.Command, " "), "flatnetd")
				said, known := says[question]
				if complaint, is := strings.CutPrefix(said, "!"); is || !known {
					e.ErrOut, e.Exit = []byte(complaint+map[bool]string{false: "asked is " + question}[known]), 1
					return
				}
				e.Out = []byte(said)
			}
			arguments := c.arguments
			if arguments == nil {
				arguments = []string{"shop/web", "db", "5432/tcp"}
			}
			exit, out, errOut := l.run(t, append([]string{"why"}, arguments...)...)
			if exit != c.exit || errOut != "" {
				t.Errorf("exit status %d, want %d; %s", exit, c.exit, errOut)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("got\n%s\nwant in it\n%s", out, want)
				}
			}
		})
	}
}
