package page_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// awaitRows waits until a view's table is as wanted; each text is a part of one row, in
// this order.
func (b *browser) awaitRows(view string, wanted ...string) {
	b.t.Helper()
	b.view(view)
	var parts []string
	for i, w := range wanted {
		for part := range strings.SplitSeq(w, " | ") {
			parts = append(parts, fmt.Sprintf("rows[%d].includes(%s)", i, quoted(part)))
		}
	}
	b.await(view+" has "+strings.Join(wanted, "; "), fmt.Sprintf(`(() => {
		const rows = [...document.querySelectorAll(".scroll tbody tr[data-at]")].map((row) => row.innerText);
		return rows.length === %d && %s;
	})()`, len(wanted), strings.Join(parts, " && ")))
}

// What the page of a cluster shows is what the cluster is, and it changes with it.
func TestShowsTheCluster(t *testing.T) {
	s := newSite(t)
	b := open(t, ui(t, s.kubeconfig, quickly...), 1280, 800)
	b.reads("#headline", "3 nodes, all well")
	b.reads("#of", "cluster production")

	var nodes, pods []string
	for _, n := range s.Nodes {
		status := n.Status()
		used := slices.IndexFunc(s.pods, func(p *cluster.Pod) bool { return p.Node == n })
		if used < 0 {
			t.Fatal("a node without pods")
		}
		nodes = append(nodes, fmt.Sprintf("%s | ready | %d of %d | %s | %s", n.Name, status.Pods[0].Used, status.Pods[0].Total, n.PodCIDRs[0], n.Addresses[0]))
	}
	for _, p := range s.pods {
		pods = append(pods, fmt.Sprintf("%s/%s | %s | %s | %s", p.Space, p.Name, p.Node.Name, p.Address(false), p.Address(true)))
	}
	b.awaitRows("nodes", nodes...)
	b.reads(".joined-picture", "2 nodes, plain routes")
	b.reads(".joined-picture", "1 node, tunnel only")
	b.view("pods")
	slices.Sort(pods) // by pod, which is sorted by node otherwise
	b.run(`document.querySelector('.scroll thead button').click()`)
	b.awaitRows("pods", pods...)
	b.awaitRows("services", "test/web:http | 10.96.0.20:80 | ClusterIP | to endpoints | "+s.pods[0].Address(false).String()+":8080")
	b.view("policies")
	b.reads("#panel", "1 of 4 pods")
	b.reads("#panel", "NetworkPolicy test/db")
	b.view("health")
	b.await("six ways", `document.querySelectorAll(".grid td:not(.self) button").length === 6`)
	for _, from := range s.Nodes {
		for _, peer := range from.Status().Peers {
			b.await("the way", fmt.Sprintf(`[...document.querySelectorAll(".grid td button")].some((cell) => cell.ariaLabel.startsWith(%s) && cell.ariaLabel.includes(%s))`,
				quoted(from.Name+" to "+peer.Name+": "), quoted(", "+peer.Mode)))
		}
	}

	// An agent that is away is seen without anybody asking, and that it is back.
	n3 := s.Node("n3")
	n3.Stop()
	b.reads("#headline", "1 of 3 nodes is not well: n3 (no answer)")
	b.reads("#said", "n3 (no answer)") // a screen reader says so
	b.await("ways that nobody knows", `document.querySelectorAll(".grid td.unknown button").length === 2`)
	b.view("overview")
	b.reads(".finding", "no flatnetd runs")
	b.await("the node", `document.querySelector(".square.bad").ariaLabel === "n3: no answer"`)
	n3.StartAgain()
	n3.WaitReady()
	b.reads("#headline", "3 nodes, all well")

	// So are pods that come and go.
	more := s.Node("n2").Pod("more")
	b.view("pods")
	b.await("the new pod", `document.querySelector("#panel").innerText.includes("test/more")`)
	more.Delete()
	b.await("no pod", `!document.querySelector("#panel").innerText.includes("test/more")`)
}

// The page of a node shows that node and its peers, as its agent says it.
func TestShowsANode(t *testing.T) {
	s := newSite(t)
	n1, n3 := s.Node("n1"), s.Node("n3")
	b := open(t, s.page(n1), 1280, 800)
	b.reads("#headline", "3 nodes, all well")
	b.reads("#of", "node n1")
	b.awaitRows("nodes", "n1 | ready | "+n1.PodCIDRs[0].String(), "n2 | peer | direct", "n3 | peer | vxlan | "+n3.PodCIDRs[0].String())
	b.awaitRows("pods", "test/db-0 | n1", "test/web-0 | n1")
	b.view("health")
	b.await("the row of the node", `document.querySelectorAll(".grid td:not(.self) button").length === 2`)

	// A node that is taken from the cluster goes from the page.
	s.Remove(n3)
	s.WriteNodes()
	b.reads("#headline", "2 nodes, all well")
	b.awaitRows("nodes", "n1 | ready", "n2 | peer")

	// Without an agent the page says so, and what it shows is from before.
	n1.Stop()
	b.reads("#live", "no flatnetd runs")
	b.reads("#headline", "2 nodes, all well")
	n1.StartAgain()
	n1.WaitReady()
	b.await("it is well again", `!document.querySelector("#live").classList.contains("failed")`)
}
