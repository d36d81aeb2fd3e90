package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/page"
	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/console"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// viewer is who looks at the page.
type viewer struct {
	t       *testing.T
	browser *http.Client
	below   string
	end     func() (exit int, out string)
}

var printedAddress = regexp.MustCompile(`(http://127\.0\.0\.1:\d+/\w+/)\?key=\w+`)

func (l *lab) ui(t *testing.T, flags ...string) *viewer {
	t.Helper()
	ctx, interrupt := context.WithCancelCause(t.Context())
	out, ended := &console.Output{}, make(chan int, 1)
	arguments := append([]string{"ui", "--kubeconfig", l.kubeconfig(t), "--interval", "1ms", "--each", "1m", "--timeout", "5m"}, flags...)
	go func() { ended <- Main(ctx, "v1.2.3", arguments, out, out) }()
	v := &viewer{t: t, end: func() (int, string) {
		interrupt(errors.New("interrupt signal received"))
		exit := <-ended
		ended <- exit
		return exit, out.String()
	}}
	t.Cleanup(func() { v.end() })
	address := out.Await(t, printedAddress)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v.browser, v.below = &http.Client{Jar: jar}, address[1]
	v.get(address[0])
	return v
}

func (v *viewer) get(address string) string {
	v.t.Helper()
	answer, err := v.browser.Get(address)
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		v.t.Fatalf("%s: %s, %v, %s", address, answer.Status, err, text)
	}
	return string(text)
}

func (v *viewer) overview() (o page.Overview) {
	v.t.Helper()
	if err := json.Unmarshal([]byte(v.get(v.below+"data")), &o); err != nil {
		v.t.Fatal(err)
	}
	return o
}

// becomes waits until the overview is of a state.
func (v *viewer) becomes(state string) (o page.Overview) {
	v.t.Helper()
	_, err := pace.Await(pace.Far(), func() error {
		if o = v.overview(); o.State != state {
			return fmt.Errorf("got %+v, want state %s", o, state)
		}
		return nil
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return o
}

func TestUI(t *testing.T) {
	l := newLab(t, 3)
	var away sync.Map
	l.server.Execute = func(_ context.Context, e *apiserver.Execution) {
		node := strings.TrimPrefix(e.Pod, "flatnetd-")
		if _, is := away.Load(node); is {
			e.ErrOut, e.Exit = []byte("flatnetd: no flatnetd runs"), 1
			return
		}
		switch strings.Join(e.Command, " ") {
		case "flatnetd status -o json --brief":
			status := fine(node)
			status["podCIDRs"] = []string{"10.1.0.0/24"}
			e.Out, _ = json.Marshal(status)
		case "flatnetd status pods -o json":
			e.Out = []byte(`{"pods":[{"pod":"shop/web","addresses":["10.1.0.2"]}]}`)
		case "flatnetd status services -o json":
			e.ErrOut, e.Exit = []byte("flatnetd: asking flatnetd: Services are not balanced by this flatnetd"), 1
		}
	}
	v := l.ui(t)
	o := v.overview()
	if o.State != page.Fine || o.Headline != "3 nodes, all well" || o.Of != page.OfCluster || o.Name != "it" || len(o.Nodes) != 3 {
		t.Errorf("got %+v", o)
	}
	if n := o.Nodes[0]; n.Name != "n1" || !n.Answers || n.Version != "v1.2.3" || n.Pods != 3 || len(n.Usage) != 2 || n.Usage[0].Total != 253 || n.PodCIDRs[0] != "10.1.0.0/24" || n.Joined[0].Peers != 2 {
		t.Errorf("got %+v", n)
	}
	if got := v.get(v.below + "ask?about=pods"); strings.Count(got, `"pod":"shop/web"`) != 3 {
		t.Error(got)
	}
	if got := v.get(v.below + "ask?about=services&node=n2"); !strings.Contains(got, "Services are not balanced by this flatnetd") {
		t.Error(got)
	}
	away.Store("n2", true)
	if o := v.becomes(page.Wrong); o.Headline != "1 of 3 nodes is not well: n2 (no answer)" || o.Nodes[0].Name != "n2" || o.Nodes[0].Answers || len(o.Findings) != 1 || o.Findings[0].Advice == "" {
		t.Errorf("got %+v", o)
	}
	away.Delete("n2")
	v.becomes(page.Fine)
	if exit, out := v.end(); exit != exitFine || !strings.Contains(out, "for you alone") {
		t.Errorf("interrupted: exit status %d, %s", exit, out)
	}
}

// Whoever may not look sees why, in the API server's words, and nothing else.
func TestUIShowsNoMoreThanItsReaderMayRead(t *testing.T) {
	l := newLab(t, 2)
	l.server.Execute = func(_ context.Context, e *apiserver.Execution) {
		e.Out, _ = json.Marshal(fine(strings.TrimPrefix(e.Pod, "flatnetd-")))
	}
	v := l.ui(t)
	v.becomes(page.Fine)
	l.server.Refuse(&metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: `pods "flatnetd-n1" is forbidden: User "eve" cannot create resource "pods/exec"`})
	o := v.becomes(page.Unknown)
	if len(o.Nodes) != 2 {
		t.Errorf("got %+v", o)
	}
	for _, n := range o.Nodes {
		if n.State != stateNotAsked || !strings.Contains(n.Reason, `User "eve" cannot create`) || n.Version != "" || n.Pods != 0 || n.Answers {
			t.Errorf("got %+v", n)
		}
	}
	if len(o.Findings) != 1 || !strings.Contains(o.Findings[0].Text, "not asked") || len(o.Findings[0].Nodes) != 2 {
		t.Errorf("findings are %+v", o.Findings)
	}
	if got := v.get(v.below + "ask?about=pods"); strings.Contains(got, "says") {
		t.Errorf("pods are still told: %s", got)
	}
}

// What is wrong from the start is said where the program was started.
func TestUICannotBegin(t *testing.T) {
	l := newLab(t, 1)
	for want, arguments := range map[string][]string{
		"--port 99999":      {"ui", "--port", "99999"},
		`unknown argument`:  {"ui", "n1"},
		"has no DaemonSet":  {"ui", "-n", "other"},
		"--timeout 0s":      {"ui", "--timeout", "0"},
		"provided but not ": {"ui", "--listen", "0.0.0.0"},
	} {
		if exit, out, errOut := l.runBare(t, arguments...); exit != exitUnknown || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("%v: exit status %d, %s%s, want %s", arguments, exit, out, errOut, want)
		}
	}
}

// The browser gets a file that nobody else may read, and no argument has the key.
func TestBrowserIsGivenAFile(t *testing.T) {
	directory := t.TempDir()
	got := filepath.Join(directory, "got")
	script := "#!/bin/sh\nstat -c '%a' \"$1\" \"$(dirname \"$1\")\" >" + got + ".new; echo \"$@\" >>" + got + ".new; cat \"$1\" >>" + got + ".new; mv " + got + ".new " + got + "\n"
	if err := os.WriteFile(filepath.Join(directory, "xdg-open"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", directory+":"+os.Getenv("PATH"))
	l := newLab(t, 1)
	l.server.Execute = func(_ context.Context, e *apiserver.Execution) { e.Out, _ = json.Marshal(fine("n1")) }
	v := l.ui(t, "--open")
	var text string
	_, err := pace.Await(pace.Far(), func() error {
		raw, err := os.ReadFile(got)
		text = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) != 4 || lines[0] != "600" || lines[1] != "700" || strings.Contains(lines[2], "key") || !strings.Contains(lines[3], "url="+v.below+"?key=") {
		t.Errorf("the browser got\n%s", text)
	}
	v.end()
	if _, err := os.Stat(lines[2]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file stays: %v", err)
	}
}
