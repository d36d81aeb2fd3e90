package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// idle returns a feature that does nothing, and has a part of everything. It is made of
// what a package outside of the agent's has.
func idle(s *feature.Shared) feature.Feature {
	rest := &feature.Task{
		Name: "idle", Every: time.Hour, Advice: "let it sleep",
		Run: func(context.Context) error {
			s.Repaired("bed", 2)
			return errors.New("woken too early")
		},
	}
	return feature.Feature{
		Open:      func() error { s.Log.Info("opened"); return nil },
		Begin:     func() error { s.Log.Info("begun"); return nil },
		Close:     func() { s.Log.Info("closed") },
		Tasks:     []*feature.Task{rest},
		Listeners: []feature.Listener{{Name: "alarm clock", Run: func(context.Context) error { rest.Ask(); return nil }}},
		Problems: func() []problem.Problem {
			return []problem.Problem{problem.FabricObject.Of(problem.Facts{Object: "pillow", Reason: "is gone", Advice: "buy one"})}
		},
		Ready: func() error { return errors.New("it sleeps") },
		Status: func(context.Context) feature.Part {
			return feature.Part{
				Document: struct {
					Idle string `json:"idle"`
				}{"as ever"},
				Brief: struct {
					Idle string `json:"idle"`
				}{"in short"},
				Rows:  []feature.Row{{Name: "idling", Value: "as ever"}},
				Table: func(w io.Writer, _ time.Time) { fmt.Fprintln(w, "DREAM") },
			}
		},
		Metrics: []prometheus.Collector{prometheus.NewGauge(prometheus.GaugeOpts{Name: "flatnet_idle_beds"})},
		Gauges: []feature.Gauge{{
			Description: prometheus.NewDesc("flatnet_idle_dreams", "Dreams.", []string{"kind"}, nil),
			Read:        func(_ context.Context, tell func(float64, ...string)) { tell(3, "sweet") },
		}},
		Repairs: []string{"bed"},
		Cleanup: feature.Removal{Do: func(context.Context) ([]string, error) { return []string{"the bed"}, nil }},
	}
}

// A feature that is in the list of an agent's features shows wherever features do, and
// nothing else has to know of it.
func TestFeatureThatDoesNothing(t *testing.T) {
	c := Config{NodeName: "n1", Version: "1.2.3", StateDir: t.TempDir(), Resync: time.Minute}
	var lines recorded
	log := slog.New(&lines)
	a := newAgent(c, log)
	if err := a.open([]feature.Feature{idle(a.shared)}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	// The first task has been done when the agent has a problem with it.
	var text, document bytes.Buffer
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(text.String(), "woken too early"); {
		if time.Now().After(deadline) {
			t.Fatalf("the status is\n%s", text.String())
		}
		text.Reset()
		_ = printStatus(ctx, c, "", "", &text) // it may not listen yet
	}
	const want = `node n1: NOT READY: it sleeps (flatnetd 1.2.3, up …)
  idling  as ever

DREAM

problems: 2
  - node n1: task idle: woken too early [task]
    let it sleep; it is tried again by itself
  - pillow: is gone [fabric-object]
    buy one
`
	if got := regexp.MustCompile(`up \w+`).ReplaceAllString(text.String(), "up …"); got != want {
		t.Errorf("status\n%s\nwant\n%s", got, want)
	}
	if err := printStatus(ctx, c, "", "json", &document); err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(document.Bytes(), &fields); err != nil || fields["idle"] != "as ever" || fields["node"] != "n1" || len(fields["problems"].([]any)) != 2 {
		t.Errorf("JSON: %v\n%s", err, document.String())
	}
	document.Reset()
	if err := printStatus(ctx, c, aboutBrief, "json", &document); err != nil || !strings.Contains(document.String(), `"idle": "in short"`) {
		t.Errorf("brief: %v\n%s", err, document.String())
	}
	metrics, err := askAgent(ctx, c.StateDir, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range []string{
		`flatnet_task_failures_total{task="idle"} `, `flatnet_task_duration_seconds_count{task="idle"} `, `flatnet_repairs_total{object="bed"} `,
		"flatnet_idle_beds 0", `flatnet_idle_dreams{kind="sweet"} 3`, "flatnet_problems 2", "flatnet_ready 0",
	} {
		if !strings.Contains(string(metrics), "\n"+series) {
			t.Errorf("metrics lack %s", series)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for i, line := range []string{
		"opened", "begun", "flatnetd begins", "problem pillow is gone 0", "problem task idle woken too early 0", "flatnetd ends; what it made stays", "closed",
	} {
		if len(lines) <= i || lines[i] != line {
			t.Fatalf("logged %q, want %q at %d", lines, line, i)
		}
	}
	removed, err := removeAll(t.Context(), c, log, []feature.Feature{idle(a.shared)})
	if err != nil || !slices.Contains(removed, "the bed") {
		t.Errorf("cleanup removed %v, %v", removed, err)
	}
}
