package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// remembered is what the agents of five nodes say of flows. web is on n1, db on n2.
func remembered() map[string]string {
	return map[string]string{
		"n1": `{"node":"n1","datapath":"ebpf","more":2,"flows":[
			{"protocol":"tcp","from":"10.1.0.2:40000","to":"10.2.0.3:5432","there":{"packets":10,"bytes":1000},"back":{"packets":20,"bytes":4000},"since":"2026-01-01T00:00:00Z","active":true,"fromPod":"shop/web","fromNode":"n1","toNode":"n2","fromInterface":"veth1","toInterface":"eth0"},
			{"protocol":"tcp","from":"10.1.0.2:40001","to":"10.2.0.3:5432","there":{"packets":1,"bytes":10},"back":{"packets":1,"bytes":10},"since":"2026-01-01T00:00:00Z","active":true,"fromPod":"shop/web","fromNode":"n1","toNode":"n2"}]}`,
		"n2": `{"node":"n2","datapath":"ebpf","flows":[
			{"protocol":"tcp","from":"10.1.0.2:40000","to":"10.2.0.3:5432","there":{"packets":9,"bytes":900},"back":{"packets":20,"bytes":4000},"since":"2026-01-01T00:00:05Z","active":false,"toPod":"shop/db","fromNode":"n1","toNode":"n2","fromInterface":"eth0","toInterface":"veth2"},
			{"protocol":"udp","from":"10.2.0.3:53","to":"10.2.0.4:40000","there":{"packets":100,"bytes":90000},"since":"2026-01-01T00:00:00Z","active":true,"fromPod":"shop/db","toPod":"shop/dns","fromNode":"n2","toNode":"n2"}]}`,
		"n3": `{"node":"n3","datapath":"kernel","because":"no tcx","flows":[]}`,
	}
}

func newFlowsLab(t *testing.T) (l *trialLab, asked func() []string) {
	t.Helper()
	l = newTrialLab(t, 5)
	l.server.Put(podOn("n1", "web", "10.1.0.2", "fd00:1::2"))
	says := remembered()
	questions := make(chan string, 100)
	l.server.Execute = func(_ context.Context, e *apiserver.Execution) {
		node := strings.TrimPrefix(e.Pod, "flatnetd-")
		questions <- node + " " + strings.Join(e.Command[1:], " ")
		switch {
		case node == "n4":
			e.ErrOut, e.Exit = []byte(`flatnetd: unknown command "flows": status, policy, cleanup or version, or none`), 2
		case node == "n5":
			e.ErrOut, e.Exit = []byte("flatnetd: asking flatnetd: no flatnetd runs"), 1
		default:
			e.Out = []byte(says[node])
		}
	}
	return l, func() (all []string) {
		for len(questions) > 0 {
			all = append(all, <-questions)
		}
		slices.Sort(all)
		return all
	}
}

// What the nodes at both ends of a flow remember is one line, and what is not known is said.
func TestFlowsOfAllNodes(t *testing.T) {
	l, asked := newFlowsLab(t)
	exit, out, errOut := l.run(t, "flows", "--limit", "2")
	if exit != exitUnknown || errOut != "" {
		t.Errorf("exit status %d, %s", exit, errOut)
	}
	for _, part := range []string{
		"PROTOCOL  FROM            POD       TO              POD       PACKETS  BYTES  AGE",
		"udp       10.2.0.3:53     shop/db   10.2.0.4:40000  shop/dns  100      90000 ",
		"tcp       10.1.0.2:40000  shop/web  10.2.0.3:5432   shop/db   30       5000 ",
		"n1, n2 (not yet)\n",
		"3 with fewer bytes are left out",
		"note: no flow is remembered at n3: the data path is the kernel's, because no tcx\n",
		"note: no flow is remembered at n4: its flatnetd is of a version without fast path\n",
		"? n5: flatnetd of pod flatnetd-n5: flatnetd: asking flatnetd: no flatnetd runs\n",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	if strings.Index(out, "udp") > strings.Index(out, "tcp") || strings.Contains(out, "40001") {
		t.Errorf("those with the most bytes are not first, or more than wanted:\n%s", out)
	}
	if got := asked(); len(got) != 5 || got[0] != "n1 flows -o json --limit 2" {
		t.Errorf("asked is %q", got)
	}
}

// Of a pod's flows, the pod's node is asked and those at the other ends, and nobody else.
func TestFlowsOfAPod(t *testing.T) {
	l, asked := newFlowsLab(t)
	exit, out, errOut := l.run(t, "flows", "--pod", "web", "-o", "json")
	if exit != exitFine || errOut != "" {
		t.Errorf("exit status %d, %s", exit, errOut)
	}
	const question = " flows -o json --limit 100 --address 10.1.0.2,fd00:1::2"
	if got := asked(); !slices.Equal(got, []string{"n1" + question, "n2" + question}) {
		t.Errorf("asked is %q", got)
	}
	var found flowsFound
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Flows) != 3 || found.LeftOut != 2 {
		t.Fatalf("got %+v", found)
	}
	if f := found.Flows[1]; f.FromPod != "shop/web" || f.ToPod != "shop/db" || f.Packets != 30 || f.Bytes != 5000 || !f.Since.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) || len(f.Nodes) != 2 || f.Nodes[0].Back.Bytes != 4000 || f.Not != nil {
		t.Errorf("the flow of both nodes is %+v", f)
	}
	// n2 has told all that it remembers, and not that one; n1 has left some out.
	if f := found.Flows[2]; f.ToNode != "n2" || fmt.Sprint(f.Not) != "[n2]" || f.fast() != "n1, not n2" {
		t.Errorf("the flow of one node is %+v", f)
	}
	_, out, _ = l.run(t, "flows", "--pod", "web", "-o", "wide", "--node", "n1")
	if !strings.Contains(out, "  n1 1000/4000") || !strings.Contains(out, "  n1 veth1/eth0\n") || !strings.Contains(out, "  on n2 ") {
		t.Errorf("wide is\n%s", out)
	}
	if got := asked(); !slices.Equal(got, []string{"n1" + question}) {
		t.Errorf("with --node asked is %q", got)
	}
	for words, want := range map[string]string{
		"--pod gone": "pod shop/gone: ", "--node n9": "--node n9: the cluster has no such node", "--limit 0": "--limit 0 shows no flow",
		"-o yaml": `-o "yaml" is not json or wide`, "--pod a/b/c": `"a/b/c" is not a pod`,
	} {
		if exit, _, errOut := l.run(t, append([]string{"flows"}, strings.Fields(words)...)...); exit != exitUnknown || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit status %d, %q, want %q", words, exit, errOut, want)
		}
	}
}
