package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	coordination "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// site is an API server.
type site struct {
	*apiserver.Server
	t    *testing.T
	host string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Server: apiserver.New(), t: t}
	s.Protobuf, s.Streams, s.Controllers = true, true, true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.host = l.Addr().String()
	s.Serve(l)
	t.Cleanup(s.Stop)
	return s
}

// deaf is a writer whose writes may no longer arrive.
type deaf struct {
	Writer
	is atomic.Bool
}

func (d *deaf) PatchLease(ctx context.Context, namespace, name string, patch []byte) error {
	if d.is.Load() {
		return errors.New("no route to host")
	}
	return d.Writer.PatchLease(ctx, namespace, name, patch)
}

// holder is one that holds, or tries to, until end.
func (s *site) holder(name, identity string, contended bool) (h *Holder, writer *deaf, end func()) {
	s.t.Helper()
	client, err := apiwatch.NewClientFor(&rest.Config{Host: s.host})
	if err != nil {
		s.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	writer = &deaf{Writer: client}
	h = &Holder{
		Writer: writer, Table: NewTable(log), Namespace: "flatnet", Name: name, Purpose: "test", Identity: identity, Contended: contended,
		Duration: pace.Of(500 * time.Millisecond), Interval: pace.Of(50 * time.Millisecond),
	}
	h.Start()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.t.Cleanup(cancel)
	h.Table.Only("")
	go h.Table.Run(ctx, client, "flatnet")
	go h.Run(ctx)
	return h, writer, cancel
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	if _, err := pace.Await(pace.Far(), func() error {
		if !is() {
			return errors.New("not yet")
		}
		return nil
	}); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Of several that want a Lease one has it, and another one when that one no longer renews
// it: at no moment two.
func TestContended(t *testing.T) {
	s := newSite(t)
	const count = 3
	var all [count]*Holder
	var writers [count]*deaf
	for i := range all {
		all[i], writers[i], _ = s.holder("one", fmt.Sprintf("agent%d/1", i), true)
	}
	valid := func() (who []int) {
		for i, h := range all {
			if h.Valid() {
				who = append(who, i)
			}
		}
		return who
	}
	for range 4 {
		var before int
		eventually(t, "a holder", func() bool {
			who := valid()
			if len(who) > 0 {
				before = who[0]
			}
			return len(who) == 1
		})
		writers[before].is.Store(true)
		eventually(t, "another holder", func() bool {
			// Who is asked first may lose it meanwhile: both at once, asked twice, is two.
			who := valid()
			if len(who) > 1 && len(valid()) > 1 {
				t.Fatalf("%v have it", who)
			}
			return len(who) == 1 && who[0] != before
		})
		writers[before].is.Store(false)
	}
}

// A Lease is its own node's, until it is not renewed, or the watch does not bring that, or
// somebody deletes it.
func TestOwn(t *testing.T) {
	s := newSite(t)
	h, writer, _ := s.holder("own", "n1/1", false)
	h.Say(map[string]string{"a": "1", "b": "2"})
	eventually(t, "the lease", h.Valid)
	h.Say(map[string]string{"a": "3"})
	eventually(t, "what it says", func() bool {
		l, _ := s.Get(&coordination.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "flatnet", Name: "own"}}).(*coordination.Lease)
		return l != nil && len(l.Annotations) == 1 && l.Annotations["a"] == "3" && l.Labels[Label] == "test" && *l.Spec.HolderIdentity == "n1/1"
	})
	lapses := h.Lapses()
	writer.is.Store(true)
	eventually(t, "the end without renewals", func() bool { return !h.Valid() })
	eventually(t, "the error", func() bool { return h.Err() != nil })
	writer.is.Store(false)
	eventually(t, "the lease again", h.Valid)
	if h.Lapses() <= lapses {
		t.Error("that it lapsed is not told")
	}
	lapses = h.Lapses()
	s.Remove(&coordination.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "flatnet", Name: "own"}})
	eventually(t, "a lapse when it is deleted", func() bool { return h.Lapses() > lapses })
	eventually(t, "the lease again", h.Valid)
	s.Stop()
	eventually(t, "the end without API server", func() bool { return !h.Valid() })
}

// Another process of the same node does not begin before its own renewal was seen.
func TestAnotherProcess(t *testing.T) {
	s := newSite(t)
	first, _, end := s.holder("own", "n1/1", false)
	eventually(t, "the lease", first.Valid)
	end()
	second, _, _ := s.holder("own", "n1/2", false)
	eventually(t, "the lease", second.Valid)
	_, from := second.Until()
	if from.IsZero() {
		t.Error("it is valid since ever")
	}
	eventually(t, "the end of the first", func() bool { return !first.Valid() })
}

// What rests is not renewed.
func TestRest(t *testing.T) {
	s := newSite(t)
	h, _, _ := s.holder("own", "n1/1", false)
	eventually(t, "the lease", h.Valid)
	h.Rest(true)
	eventually(t, "the end", func() bool { return !h.Valid() })
	h.Rest(false)
	eventually(t, "the lease again", h.Valid)
}

// A table knows of the Leases for one purpose, or of all, and what it is asked for last counts.
func TestOnly(t *testing.T) {
	s := newSite(t)
	for _, purpose := range []string{"a", "b"} {
		s.Put(&coordination.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "flatnet", Name: purpose, Labels: map[string]string{Label: purpose}}})
	}
	client, err := apiwatch.NewClientFor(&rest.Config{Host: s.host})
	if err != nil {
		t.Fatal(err)
	}
	table := NewTable(slog.New(slog.DiscardHandler))
	go table.Run(t.Context(), client, "flatnet")
	for _, step := range []struct {
		only string
		a, b int
	}{{"a", 1, 0}, {"", 1, 1}, {"b", 0, 1}, {"b", 0, 1}} {
		table.Only(step.only)
		_, err := pace.Await(pace.Far(), func() error {
			if a, b := len(table.All("a")), len(table.All("b")); !table.Known() || a != step.a || b != step.b {
				return fmt.Errorf("only %q: it knows %d and %d", step.only, a, b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
