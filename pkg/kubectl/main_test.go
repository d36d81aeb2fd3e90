package kubectl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// run is the program with arguments and a cluster.
func (l *lab) run(t *testing.T, arguments ...string) (exit int, out, errOut string) {
	t.Helper()
	if len(arguments) > 0 && arguments[0] != "version" && arguments[0] != "stat" {
		// However long a busy machine takes.
		arguments = append(arguments, "--each", "1m", "--timeout", "5m")
	}
	return l.runBare(t, arguments...)
}

// runBare is run without flags of a test.
func (l *lab) runBare(t *testing.T, arguments ...string) (exit int, out, errOut string) {
	t.Helper()
	t.Setenv("KUBECONFIG", l.kubeconfig(t))
	var o, e bytes.Buffer
	exit = Main(t.Context(), "v1.2.3", arguments, &o, &e)
	return exit, o.String(), e.String()
}

func TestStatusAsJSON(t *testing.T) {
	l := newLab(t, 2)
	l.server.Execute = func(_ context.Context, e *apiserver.Execution) {
		node := strings.TrimPrefix(e.Pod, "flatnetd-")
		status := fine(node)
		switch {
		case node == "n1":
		case strings.Join(e.Command, " ") == "flatnetd status -o json --brief":
			// One of before there was a brief answer.
			e.ErrOut, e.Exit = []byte("flag provided but not defined: -brief\nflatnetd joins …"), 2
			return
		default:
			delete(status, "joined")
			status["peers"] = []any{map[string]any{"name": "n1", "mode": "direct"}}
		}
		e.Out, _ = json.Marshal(status)
	}
	exit, out, errOut := l.run(t, "status", "--context", "it", "-o", "json")
	if exit != exitFine || errOut != "" {
		t.Fatalf("exit status %d, %s", exit, errOut)
	}
	var got overview
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Namespace != "net" || len(got.Nodes) != 2 || got.Nodes[1].Node != "n2" || got.Nodes[1].State != "ready" {
		t.Errorf("got %s", out)
	}
	if j := got.Nodes[1].Joined; len(j) != 1 || j[0].Peers != 1 || j[0].Mode != "direct" {
		t.Errorf("joined is %v", j)
	}
}

func TestCannotFindOut(t *testing.T) {
	l := newLab(t, 1)
	for _, c := range []struct {
		arguments []string
		before    func()
		want      string
	}{
		{[]string{"status", "-n", "other"}, nil, "namespace other has no DaemonSet"},
		{[]string{"status", "--context", "nowhere"}, nil, `context "nowhere" does not exist`},
		{[]string{"status", "-o", "yaml"}, nil, `-o "yaml" is not json`},
		{[]string{"status", "all"}, nil, `unknown argument "all"`},
		{[]string{"stat"}, nil, `unknown command "stat"`},
		{[]string{"status", "--parallel", "0"}, nil, "--parallel 0"},
		{[]string{"status"}, func() { l.server.Remove(daemonSet()) }, "is flatnet installed"},
		{[]string{"status"}, func() {
			l.server.Refuse(&metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: `pods is forbidden: User "eve" cannot list resource "pods"`})
		}, `listing pods of namespace flatnet: pods is forbidden: User "eve" cannot list resource "pods"`},
		{[]string{"status"}, l.server.Stop, "connection refused"},
	} {
		if c.before != nil {
			c.before()
		}
		exit, out, errOut := l.run(t, c.arguments...)
		if exit != exitUnknown || out != "" || !strings.Contains(errOut, c.want) {
			t.Errorf("%v: exit status %d, %s%s, want %s", c.arguments, exit, out, errOut, c.want)
		}
	}
}

func TestUsage(t *testing.T) {
	l := newLab(t, 0)
	if exit, out, _ := l.run(t, "version"); exit != exitFine || out != "v1.2.3\n" {
		t.Error(exit, out)
	}
	if exit, _, errOut := l.run(t); exit != exitUnknown || !strings.Contains(errOut, "kubectl flatnet status") {
		t.Error(exit, errOut)
	}
	if exit, _, errOut := l.run(t, "status", "--help"); exit != exitFine || !strings.Contains(errOut, "-parallel") {
		t.Error(exit, errOut)
	}
}

// Users' machines are no Linux: of flatnet's own packages only those are in the program
// that need none.
func TestRunsWhereKubectlDoes(t *testing.T) {
	const module = "github.com/flatnet-cni/flatnet/"
	command := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/kubectl-flatnet")
	command.Dir = filepath.Join("..", "..")
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		switch own := strings.TrimPrefix(p, module); own {
		case p, "cmd/kubectl-flatnet", "pkg/kubectl", "pkg/page", "pkg/problem":
		default:
			t.Errorf("%s is in it", own)
		}
	}
}

// Whoever interrupts sees what is known by then, and that the rest is not.
func TestStatusInterrupted(t *testing.T) {
	l := newLab(t, 3)
	ctx, interrupt := context.WithCancelCause(t.Context())
	l.server.Execute = func(_ context.Context, e *apiserver.Execution) {
		node := strings.TrimPrefix(e.Pod, "flatnetd-")
		if node == "n2" {
			interrupt(errors.New("interrupt signal received"))
			<-t.Context().Done()
		}
		e.Out, _ = json.Marshal(fine(node))
	}
	t.Setenv("KUBECONFIG", l.kubeconfig(t))
	var out, errOut strings.Builder
	exit := Main(ctx, "v1", []string{"status", "--parallel", "1", "--each", "1m"}, &out, &errOut)
	const want = `3 nodes: 2 not asked, 1 ready; 3 pods
  - 2 nodes (n2 n3): not asked: interrupted
`
	if exit != exitUnknown || !strings.HasPrefix(out.String(), want) {
		t.Errorf("exit status %d, got\n%s%s\nwant\n%s", exit, out.String(), errOut.String(), want)
	}
}
