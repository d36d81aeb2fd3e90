package page_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"
)

// reach adds to a status how a node and its Services are reached from elsewhere, and which
// way established flows take. The last node has an agent of before all that.
func (s *simulated) reach(i int, status object) {
	if s.plain || i == s.nodes && i > 2 {
		return
	}
	path := object{"wanted": "auto", "datapath": "ebpf", "flows": 40 * s.podsOf(i), "hits": 9300 + i, "misses": 700}
	if i == 2 {
		path = object{"wanted": "auto", "datapath": "kernel", "because": "the kernel has no tcx (Linux 6.6)"}
	}
	status["fastPath"] = path
	up := 0
	for _, p := range s.sessions(i)["peers"].([]object) {
		if p["state"] == "established" {
			up++
		}
	}
	status["bgp"] = object{"peers": 2, "established": up, "announced": 3, "learned": 40}
	status["loadBalancer"] = object{"leader": "n2", "here": 8, "elsewhere": 16, "nobody": 1}
}

// sessions are those with the routers of a rack. One of n1's is down.
func (s *simulated) sessions(i int) object {
	var peers []object
	for k, name := range []string{"rack-a", "rack-b"} {
		p := object{"name": name, "address": fmt.Sprintf("192.0.2.%d", k+1), "asn": 65000 + k, "families": []string{"IPv4", "IPv6"}, "state": "established", "since": s.began, "announced": 3, "received": 21, "accepted": 20,
			"refused": []object{{"reason": "accept has no prefix that holds it", "count": 1, "example": "0.0.0.0/0"}}}
		if i == 1 && k == 1 {
			p["state"], p["reason"] = "active", cmp.Or(s.evil, "the router says nothing: is it up, and does it know this node?")
			delete(p, "refused")
		}
		peers = append(peers, p)
	}
	return object{"asn": 64512, "routerID": fmt.Sprintf("172.30.%d.%d", i>>8, i&255), "peers": peers, "announced": []string{fmt.Sprintf("10.%d.%d.0/24", 64+i>>8, i&255)}, "learned": 40}
}

// announcements are the addresses of load balancers as a node has them; n2 gives them.
func (s *simulated) announcements(i int) object {
	var addresses []object
	for k := range 24 {
		addresses = append(addresses, object{"ip": fmt.Sprintf("203.0.113.%d", k+1), "services": []string{fmt.Sprintf("%s-%d", apps[k%len(apps)], k)}, "node": name(1 + k%3)})
	}
	addresses = append(addresses, object{"ip": "203.0.113.25", "services": []string{cmp.Or(s.evil, "jobs/run")}, "nobody": "no node that can answer has a ready endpoint"})
	said := object{"node": name(i), "leader": "n2", "interfaces": []string{"eth0"}, "valid": true, "addresses": addresses,
		"pools":   []object{{"pool": "public", "family": "IPv4", "ranges": []string{"203.0.113.1-203.0.113.32"}, "size": 32, "given": 25}, {"pool": "public", "family": "IPv6", "ranges": []string{"2001:db8::/120"}, "size": 256, "given": 3}},
		"members": []object{{"node": "n1"}, {"node": "n2"}, {"node": "n3"}},
	}
	if i == 2 {
		said["waiting"] = []object{{"service": cmp.Or(s.evil, "mail/in"), "reason": "pool internal is not for namespace mail"}}
	}
	return said
}

// flows are those of a pod that take the fast path.
func (s *simulated) flows(i int, pod string) object {
	if i == 2 {
		return object{"node": name(i), "datapath": "kernel", "because": "the kernel has no tcx (Linux 6.6)", "flows": []object{}}
	}
	flows := []object{}
	for k := range 5 {
		f := object{"protocol": "tcp", "from": fmt.Sprintf("10.64.%d.%d:5432", i, k+2), "to": fmt.Sprintf("10.64.2.%d:40000", k+2), "since": time.Now().Add(-time.Duration(k+1) * time.Minute), "active": k != 3,
			"there": object{"packets": 10 * (9 - k), "bytes": 1_234_567 * (9 - k)}, "back": object{"packets": 9 - k, "bytes": 1000 * (9 - k)},
			"fromPod": pod, "fromNode": name(i), "toNode": cmp.Or(s.evil, "n2")}
		if k == 1 {
			f["toPod"] = "shop/db-0"
		}
		flows = append(flows, f)
	}
	return object{"node": name(i), "datapath": "ebpf", "flows": flows, "more": 12}
}

// How nodes and Services are reached from elsewhere is shown, with why it is not; and so
// is which way the packets of a pod take.
func TestReachedFromElsewhere(t *testing.T) {
	s := newSimulated(3, 20)
	_, kubeconfig := newAPI(t, 3, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	b.reads("#headline", "3 nodes, all well")
	b.awaitRows("nodes", "n1 | ebpf, 93 %", "n2 | kernel", "n3 | –")
	b.run(`document.querySelector(".scroll tbody button").click()`)
	b.reads("#drawer", "of packets take the fast path")
	b.reads("#drawer", "1 of 2 sessions established")
	b.reads("#drawer", "answers for 8 of their addresses")

	// n3's agent says nothing of it, and is not asked.
	b.awaitRows("bgp", "n1 | rack-b | 192.0.2.2 | 65001 | active | the router says nothing", "n1 | rack-a | established | 21 | 20 | 1 not accepted, as 0.0.0.0/0", "n2 | rack-a", "n2 | rack-b")
	b.reads(".summary", "1 of 4 sessions is not established")
	if text := b.text("#panel"); strings.Contains(text, "n3") {
		t.Errorf("n3 is asked for what it does not do:\n%s", text)
	}
	b.run(`document.querySelector(".scroll tbody button").click()`)
	b.reads("#drawer", "is it up, and does it know this node?")

	b.view("balancers")
	b.reads(".summary", "As node n2 has them: addresses are given by the agent of n2; 3 nodes can answer; 1 Service waits")
	b.reads(".tiles", "25 of 32")
	b.await("what is wrong first", `(() => {
		const rows = [...document.querySelectorAll(".scroll tbody tr[data-at]")].map((row) => row.innerText);
		return rows[0].includes("mail/in") && rows[0].includes("pool internal is not for namespace mail") && rows[1].includes("203.0.113.25") && rows[1].includes("no node that can answer") && rows[2].includes("203.0.113.1") && rows[2].includes("n1");
	})()`)
	b.run(`const select = document.querySelector("#node"); select.value = "n1"; select.dispatchEvent(new Event("change"))`)
	b.reads(".summary", "As node n1 has them: addresses are given by the agent of n2; 3 nodes can answer; which Services wait, only that one knows")

	b.view("pods")
	pod := func(node string) {
		t.Helper()
		b.await("pods", `document.querySelector(".scroll tbody tr[data-at]")`)
		b.run(fmt.Sprintf(`[...document.querySelectorAll(".scroll tbody tr[data-at]")].find((row) => row.innerText.includes("\t%s\t")).querySelector("button").click()`, node))
	}
	pod("n1")
	b.reads("#drawer", "11 MB / 9.0 kB")
	b.reads("#drawer", "shop/db-0")
	b.reads("#drawer", "not yet fast in both directions")
	b.reads("#drawer", "and 12 more with fewer bytes")
	b.run(`document.querySelector("#node").value = "n2"; document.querySelector("#node").dispatchEvent(new Event("change"))`)
	pod("n2")
	b.reads("#drawer", "None: the node's data path is the kernel's, because the kernel has no tcx (Linux 6.6).")
}

// Where nobody does it, the page says so and asks nobody.
func TestReachedFromNowhere(t *testing.T) {
	s := newSimulated(1, 4)
	s.plain = true
	_, kubeconfig := newAPI(t, 1, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	b.view("bgp")
	b.reads(".summary", "No node speaks BGP")
	b.view("balancers")
	b.reads(".summary", "No agent gives addresses to Services")
}
