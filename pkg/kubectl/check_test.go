package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// trialLab is one in which pods can be made. They have the addresses 10.N.0.2 and
// fd00:N::2 of node N, and a second pod there has 10.N.0.3 and fd00:N::3.
type trialLab struct {
	*lab
	// answer is what a pod's server says of one question, or the node's wget; "" is what
	// is as it should be.
	answer func(from int, q []string) string
	made   atomic.Int64 // pods that are the first of their node
	// says is what the node's flatnetd says, of what is fine.
	says func(node string, status map[string]any) error
	// refuse is how many pods are refused at first, as the service account is missing.
	refuse atomic.Int64
}

func newTrialLab(t *testing.T, nodes int) *trialLab {
	l := &trialLab{lab: newLab(t, nodes), answer: func(int, []string) string { return "" }, says: func(string, map[string]any) error { return nil }}
	l.server.Admit = func(o apiserver.Object) *metav1.Status {
		p, is := o.(*v1.Pod)
		if !is {
			return nil
		}
		if l.refuse.Add(-1) >= 0 {
			return &metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: "error looking up service account x/default: not found"}
		}
		n, last := strings.TrimPrefix(p.Spec.NodeName, "n"), "3"
		if p.Labels[componentLabel] == firstComponent {
			l.made.Add(1)
			last = "2"
		}
		p.Status = podOn("", "", "10."+n+".0."+last, "fd00:"+n+"::"+last).Status
		return nil
	}
	l.server.Execute = l.execute
	return l
}

// execute does as the pod's shell and its server would, and as wget on the node.
func (l *trialLab) execute(_ context.Context, e *apiserver.Execution) {
	if e.Command[0] == agentName {
		out, err := answers(l.says)(context.Background(), container{e.Namespace, e.Pod, e.Container}, e.Command...)
		if e.Out = out; err != nil {
			e.ErrOut, e.Exit = []byte(err.Error()), 1
		}
		return
	}
	if e.Command[0] == "wget" {
		var n int
		fmt.Sscanf(e.Pod, "flatnetd-n%d", &n)
		answer := l.answer(n, e.Command)
		if complaint, is := strings.CutPrefix(answer, "!"); is {
			e.ErrOut, e.Exit = []byte(complaint), 1
			return
		}
		e.Out = fmt.Appendf(nil, "172.30.0.%d:4000", n)
		return
	}
	var index int
	fmt.Sscanf(e.Pod, "pod-%d", &index)
	from := index + 1
	questions := e.Command[4:]
	for i := 0; len(questions) >= 6; i++ {
		q := questions[:6]
		questions = questions[6:]
		answer := l.answer(from, q)
		if answer == "" {
			var responses []string
			switch {
			case q[3] == "hostname":
				for n := range l.made.Load() {
					responses = append(responses, podOf(int(n)))
				}
			case strings.Contains(q[1], ":"):
				responses = []string{fmt.Sprintf("[fd00:%d::2]:4000", from)}
			default:
				responses = []string{fmt.Sprintf("10.%d.0.2:4000", from)}
			}
			raw, _ := json.Marshal(map[string]any{"responses": responses})
			answer = string(raw)
		}
		e.Out = fmt.Appendf(e.Out, "%d %s\n", i, answer)
	}
}

// left are the namespaces and pods that are there after a trial.
func (l *trialLab) left(t *testing.T) (names []string) {
	t.Helper()
	if err := l.client.pods(context.Background(), "", trialLabel, func(p *v1.Pod) { names = append(names, p.Namespace+"/"+p.Name) }); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestCheckAllIsWell(t *testing.T) {
	l := newTrialLab(t, 3)
	l.refuse.Store(1)
	exit, out, errOut := l.run(t, "check")
	const want = `3 nodes: 3 ready; 9 pods; no problems

FROM  TCP IPV4  TCP IPV6  SAME NODE IPV4  SAME NODE IPV6  FULL SIZE IPV4  FULL SIZE IPV6  SERVICE  FROM NODE IPV4  FROM NODE IPV6
n1    2 of 2    2 of 2    1 of 1          1 of 1          2 of 2          2 of 2          1 of 1   3 of 3          3 of 3
n2    2 of 2    2 of 2    1 of 1          1 of 1          2 of 2          2 of 2          1 of 1   3 of 3          3 of 3
n3    2 of 2    2 of 2    1 of 1          1 of 1          2 of 2          2 of 2          1 of 1   3 of 3          3 of 3

all is well: 3 nodes, 51 paths
`
	if exit != exitFine || out != want {
		t.Errorf("exit status %d, got\n%s\nwant\n%s", exit, out, want)
	}
	for _, part := range []string{"two pods on each of 3 of 3 nodes", "6 of 6 pods ready", "3 of 3 nodes tried"} {
		if !strings.Contains(errOut, part) {
			t.Errorf("progress lacks %q:\n%s", part, errOut)
		}
	}
	if left := l.left(t); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

func TestCheckFindsFaults(t *testing.T) {
	l := newTrialLab(t, 3)
	l.answer = func(from int, q []string) string {
		switch {
		case q[0] == "wget" && from == 2 && strings.Contains(q[len(q)-1], "10.3.0.2"):
			return "!wget: download timed out"
		case q[0] == "http" && q[1] == "10.3.0.2":
			return `{"responses":["172.30.0.1:999"]}`
		case q[0] == "udp" && from == 1 && q[1] == "fd00:2::2":
			return `{"errors":["i/o timeout"]}`
		case q[0] == "http" && q[1] == "10.1.0.2" && from == 3:
			return "curl: (7) refused"
		case q[1] == "fd00:1::3" || q[1] == "fd00:3::3":
			return "curl: (28) timed out"
		}
		return ""
	}
	exit, out, _ := l.run(t, "check")
	const want = `3 nodes: 3 ready; 9 pods; no problems

FROM  TCP IPV4  TCP IPV6  SAME NODE IPV4  SAME NODE IPV6  FULL SIZE IPV4  FULL SIZE IPV6  SERVICE  FROM NODE IPV4  FROM NODE IPV6
n1    1 of 2    2 of 2    1 of 1          0 of 1          2 of 2          1 of 2          1 of 1   3 of 3          3 of 3
n2    1 of 2    2 of 2    1 of 1          1 of 1          2 of 2          2 of 2          1 of 1   2 of 3          3 of 3
n3    1 of 2    2 of 2    1 of 1          0 of 1          2 of 2          2 of 2          1 of 1   3 of 3          3 of 3

  - from 2 nodes (n1 n2) to n3, TCP IPv4: is seen as 172.30.0.1: its address was translated
  - from 2 nodes (n1 n3) to its second pod, same node IPv6: curl: (28) timed out
  - from n1 to n2, full size IPv6: i/o timeout
  - from n2 to n3, from node IPv4: wget: download timed out
  - from n3 to n1, TCP IPv4: curl: (7) refused

Where only packets`
	if exit != exitWrong || !strings.HasPrefix(out, want) {
		t.Errorf("exit status %d, got\n%s\nwant\n%s", exit, out, want)
	}
}

// Where every path works flatnetd may know of something that is wrong all the same, and a
// node without one is not tried.
func TestCheckSaysWhatAgentsSay(t *testing.T) {
	l := newTrialLab(t, 3)
	l.server.Remove(agentOn("n3"))
	l.says = func(node string, status map[string]any) error {
		if node == "n2" {
			status["problems"] = []any{map[string]any{"kind": "sysctl", "node": node, "object": "sysctl x", "reason": "is 0", "advice": "set it"}}
		}
		return nil
	}
	exit, out, _ := l.run(t, "check")
	const begin = `3 nodes: 1 no flatnetd, 2 ready; 6 pods; problems at 1 node
  - n3: no flatnetd: no flatnetd pod is on it, though DaemonSet flatnetd selects it
    ` + "`kubectl -n net describe daemonset flatnetd`" + ` has events that say why
  - n2: sysctl x: is 0 [sysctl]
    set it

FROM`
	if exit != exitWrong || !strings.HasPrefix(out, begin) || !strings.HasSuffix(out, "\nall paths work, but flatnetd is not well everywhere (above): 2 nodes, 22 paths\n") {
		t.Errorf("exit status %d, got\n%s\nwant\n%s", exit, out, begin)
	}
}

// A Service that leaves one pod out is not as it should be.
func TestCheckServiceLeavesOut(t *testing.T) {
	l := newTrialLab(t, 2)
	l.answer = func(_ int, q []string) string {
		if q[1] == serviceName {
			return `{"responses":["pod-0","pod-0"]}`
		}
		return ""
	}
	if exit, out, _ := l.run(t, "check"); exit != exitWrong || !strings.Contains(out, "no connection to Service all led to pod-1 on n2") {
		t.Error(exit, out)
	}
}

// Whoever interrupts leaves nothing behind.
func TestCheckInterrupted(t *testing.T) {
	l := newTrialLab(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	l.answer = func(int, []string) string { cancel(); return "" }
	t.Setenv("KUBECONFIG", l.kubeconfig(t))
	var out, errOut strings.Builder
	if exit := Main(ctx, "v1", []string{"check"}, &out, &errOut); exit != exitUnknown || !strings.Contains(errOut.String(), "ended before all was tried: interrupted") {
		t.Error(exit, out.String(), errOut.String())
	}
	if left := l.left(t); len(left) > 0 || l.made.Load() != 2 {
		t.Errorf("left are %v of %d", left, l.made.Load())
	}
}

// What the shell in a pod makes of the questions: a datagram is filled up to the MTU.
func TestScript(t *testing.T) {
	programs := t.TempDir()
	for name, text := range map[string]string{
		"cat":  "echo 1450",
		"curl": `for last; do :; done; printf '{"asked":"%s"}\n' "$last"`,
	} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	arguments := []string{"-c", script, "sh"}
	for _, q := range []question{
		{Kind: byTCP, Target: netip.MustParseAddr("10.1.0.2")}, {Kind: fullSize, Target: netip.MustParseAddr("10.1.0.2")},
		{Kind: fullSize, Target: netip.MustParseAddr("fd00::2")}, {Kind: byService},
	} {
		arguments = append(arguments, q.words()...)
	}
	command := exec.CommandContext(t.Context(), "sh", arguments...)
	command.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	const at = `{"asked":"http://127.0.0.1:8080/dial?protocol=`
	for _, want := range []string{
		`0 ` + at + `http&host=10.1.0.2&port=8080&tries=1&request=clientip"}`,
		`1 ` + at + `udp&host=10.1.0.2&port=8081&tries=1&request=clientip` + strings.Repeat("+", 1450-28-8) + `"}`,
		`2 ` + at + `udp&host=fd00::2&port=8081&tries=1&request=clientip` + strings.Repeat("+", 1450-48-8) + `"}`,
		`3 ` + at + `http&host=all&port=8080&tries=20&request=hostname"}`,
	} {
		if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
			t.Errorf("got\n%s\nwant in it\n%s", out, want)
		}
	}
}

func TestSpread(t *testing.T) {
	var all []site
	for i := range 10 {
		all = append(all, site{Node: nodeName(i)})
	}
	all[3].Fault = &fault{}
	for some, want := range map[int]string{0: "n0 n1 n2 n4 n5 n6 n7 n8 n9", 3: "n0 n4 n7", 9: "n0 n1 n2 n4 n5 n6 n7 n8 n9", 20: "n0 n1 n2 n4 n5 n6 n7 n8 n9"} {
		var names []string
		for _, s := range spread(all, some) {
			names = append(names, s.Node)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%d: chosen are %s, want %s", some, got, want)
		}
	}
}

// What fails because others hear of a new pod a little later is asked again; what was
// translated is not, since it would be so again.
func TestCheckAsksAgain(t *testing.T) {
	l := newTrialLab(t, 2)
	var lost, late, translated atomic.Int64
	l.answer = func(from int, q []string) string {
		switch {
		case q[0] == "udp" && q[1] == "10.2.0.2" && lost.Add(1) == 1:
			return `{"errors":["i/o timeout"]}`
		case q[1] == serviceName && from == 1 && late.Add(1) < 3:
			return `{"errors":["lookup all: no such host"]}`
		case q[0] == "http" && q[1] == "fd00:2::2":
			translated.Add(1)
			return `{"responses":["[fd00::99]:1"]}`
		}
		return ""
	}
	exit, out, _ := l.run(t, "check")
	if exit != exitWrong || !strings.Contains(out, "  - from n1 to n2, TCP IPv6: is seen as fd00::99: its address was translated\n") || strings.Count(out, "  - ") != 1 {
		t.Errorf("exit status %d:\n%s", exit, out)
	}
	if a, b, c := lost.Load(), late.Load(), translated.Load(); a != 2 || b != 3 || c != 1 {
		t.Errorf("asked were the lost one %d, the Service %d, the translated one %d times", a, b, c)
	}
}
