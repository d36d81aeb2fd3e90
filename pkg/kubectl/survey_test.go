package kubectl

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// without makes the lab's client one that may not ask for some paths.
func (l *lab) without(t *testing.T, paths ...string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(paths, r.URL.Path) {
			l.server.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(&metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: `User "eve" cannot list ` + r.URL.Path,
		})
	}))
	t.Cleanup(s.Close)
	var err error
	if l.client, err = newClient(&rest.Config{Host: s.URL}, "test"); err != nil {
		t.Fatal(err)
	}
}

func fineAgents() executes {
	return answers(func(string, map[string]any) error { return nil })
}

// Who may look into one namespace only finds flatnet where it is nearly always.
func TestRightsOfOneNamespace(t *testing.T) {
	l := newLab(t, 1)
	l.without(t, "/apis/apps/v1/daemonsets")
	_, err := l.client.look(t.Context(), "")
	const want = `namespace flatnet has no DaemonSet`
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `User "eve" cannot list /apis/apps/v1/daemonsets`) {
		t.Errorf("%v, want %s", err, want)
	}
	set, pod := daemonSet(), agentOn("n1")
	set.Namespace, pod.Namespace = "flatnet", "flatnet"
	l.server.Put(set)
	l.server.Put(pod)
	s := l.look(t)
	if s.Namespace != "flatnet" || s.DaemonSet == nil || len(s.Sites) != 1 || s.Sites[0].Container.Namespace != "flatnet" || len(s.Unknown) > 0 {
		t.Errorf("%+v", s)
	}
}

func TestWithoutRightForDaemonSets(t *testing.T) {
	l := newLab(t, 2)
	l.server.Remove(agentOn("n2"))
	l.without(t, "/apis/apps/v1/namespaces/net/daemonsets")
	s, err := l.client.look(t.Context(), "net")
	if err != nil {
		t.Fatal(err)
	}
	o := takeOverview(t.Context(), "test", s, asker{fineAgents(), 2, time.Minute})
	const want = `2 nodes: 1 no flatnetd, 1 ready; 3 pods
  ? listing daemonsets of namespace net: User "eve" cannot list /apis/apps/v1/namespaces/net/daemonsets; which nodes should have flatnetd is not known
  - n2: no flatnetd: no flatnetd pod is on it
`
	if got := printed(o); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWithoutRightForNodes(t *testing.T) {
	l := newLab(t, 2)
	l.without(t, "/api/v1/nodes")
	o := takeOverview(t.Context(), "test", l.look(t), asker{fineAgents(), 2, time.Minute})
	const want = `2 nodes: 2 ready; 6 pods
  ? listing nodes: User "eve" cannot list /api/v1/nodes; nodes without flatnetd are not seen
`
	if got := printed(o); !strings.HasPrefix(got, want) || o.exit() != exitUnknown {
		t.Errorf("exit status %d, got\n%s\nwant\n%s", o.exit(), got, want)
	}
}

// Which nodes an affinity or a taint leaves out, the DaemonSet's own number says.
func TestAllThatAreWanted(t *testing.T) {
	l := newLab(t, 3)
	l.server.Remove(agentOn("n3"))
	set := daemonSet()
	for wanted, state := range map[int32]string{2: stateNotSelected, 3: stateNoAgent} {
		set.Status.DesiredNumberScheduled = wanted
		l.server.Put(set)
		if f := l.look(t).Sites[2].Fault; f == nil || f.State != state {
			t.Errorf("of %d wanted the third is %+v, want %s", wanted, f, state)
		}
	}
}

// During an update a node has two pods: the one that runs is asked.
func TestWhichPodIsAsked(t *testing.T) {
	at := func(name string, age time.Duration, phase v1.PodPhase, ends bool) *v1.Pod {
		p := agentOn("n1")
		p.Name, p.Status.Phase, p.CreationTimestamp = name, phase, metav1.NewTime(time.Unix(1_000_000, 0).Add(-age))
		if ends {
			p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1_000_000, 0)}
		}
		return p
	}
	for want, others := range map[string][2]*v1.Pod{
		"runs":  {at("runs", time.Hour, v1.PodRunning, false), at("other", 0, v1.PodPending, false)},
		"stays": {at("stays", time.Hour, v1.PodRunning, false), at("other", 0, v1.PodRunning, true)},
		"ends":  {at("ends", time.Hour, v1.PodRunning, true), at("other", 0, v1.PodPending, false)},
		"newer": {at("newer", 0, v1.PodRunning, false), at("other", time.Hour, v1.PodRunning, false)},
	} {
		l := newLab(t, 1)
		l.server.Remove(agentOn("n1"))
		l.server.Put(others[0])
		l.server.Put(others[1])
		if got := l.look(t).Sites[0].Container.Pod; got != want {
			t.Errorf("of %s and %s %s is asked", others[0].Name, others[1].Name, got)
		}
	}
}
