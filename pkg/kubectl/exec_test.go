package kubectl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

func TestExec(t *testing.T) {
	for _, older := range []bool{false, true} {
		t.Run(map[bool]string{false: "websocket", true: "SPDY"}[older], func(t *testing.T) {
			l := newLab(t, 1)
			l.server.NoWebsockets = older
			testExec(t, l)
		})
	}
}

func testExec(t *testing.T, l *lab) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	l.server.Execute = func(_ context.Context, e *apiserver.Execution) {
		switch e.Command[0] {
		case "whereami":
			e.Out = fmt.Appendf(nil, "%s/%s/%s %q", e.Namespace, e.Pod, e.Container, e.Command)
		case "long":
			e.Out = long
		case "fails":
			e.Out, e.ErrOut, e.Exit = []byte("half"), []byte("it does not work\n"), 3
		}
	}
	at := container{"net", "flatnetd-n1", "flatnetd"}
	out, err := l.client.Exec(t.Context(), at, "whereami", "a b", "c")
	if want := `net/flatnetd-n1/flatnetd ["whereami" "a b" "c"]`; err != nil || string(out) != want {
		t.Errorf("got %s, %v, want %s", out, err, want)
	}
	if out, err = l.client.Exec(t.Context(), at, "long"); err != nil || !bytes.Equal(out, long) {
		t.Errorf("got %d bytes, %v, want %d", len(out), err, len(long))
	}
	out, err = l.client.Exec(t.Context(), at, "fails")
	var exit exitError
	if !errors.As(err, &exit) || exit.status != 3 || exit.Error() != "it does not work" || string(out) != "half" {
		t.Errorf("got %s, %#v", out, err)
	}
}

// The API server says which right is missing, and that arrives.
func TestExecForbidden(t *testing.T) {
	l := newLab(t, 1)
	const right = `pods "flatnetd-n1" is forbidden: User "eve" cannot create resource "pods/exec" in API group "" in the namespace "net"`
	l.server.Refuse(&metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: right})
	_, err := l.client.Exec(t.Context(), container{"net", "flatnetd-n1", "flatnetd"}, "flatnetd")
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), right) {
		t.Errorf("%v; forbidden: %t", err, apierrors.IsForbidden(err))
	}
}

// A pod that takes the question and never answers costs its time, and no more.
func TestExecHangs(t *testing.T) {
	l := newLab(t, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	l.server.Execute = func(context.Context, *apiserver.Execution) {
		cancel(errNoAnswer)
		<-t.Context().Done()
	}
	if _, err := l.client.Exec(ctx, container{"net", "flatnetd-n1", "flatnetd"}, "flatnetd"); !errors.Is(err, errNoAnswer) {
		t.Error(err)
	}
}

// So does one that does not even say whether it takes the question.
func TestExecHangsBefore(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.Error(w, "no websockets here", http.StatusBadRequest)
			return
		}
		cancel(errNoAnswer)
		<-ended
	}))
	defer s.Close()
	defer close(ended)
	c, err := newClient(&rest.Config{Host: s.URL}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(ctx, container{"net", "flatnetd-n1", "flatnetd"}, "flatnetd"); !errors.Is(err, errNoAnswer) {
		t.Error(err)
	}
}

func TestBounded(t *testing.T) {
	b := &bounded{most: 5}
	for _, text := range []string{"abc", "def", "ghi"} {
		if n, err := b.Write([]byte(text)); n != 3 || err != nil {
			t.Error(n, err)
		}
	}
	if b.String() != "abcde" || !b.full {
		t.Error(b.String(), b.full)
	}
}
