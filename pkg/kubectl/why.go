package kubectl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

var whyCommand = command{
	name: "why", arguments: " POD POD [PORT[/PROTOCOL]]", does: "why one pod does not reach the other: the first thing on the way that is wrong", timeout: 15 * time.Second,
	prepare: func(set *flag.FlagSet, o *options) func(context.Context, *client, io.Writer, io.Writer) (int, error) {
		set.StringVar(&o.output, "o", "", "`json` for machines")
		return func(ctx context.Context, c *client, out, _ io.Writer) (int, error) {
			if n := len(o.arguments); n != 2 && n != 3 {
				return 0, errors.New("why needs two pods, as namespace/name or name, and may have a port: why POD POD [PORT[/PROTOCOL]]")
			}
			w := &walk{program: o.version, client: c, asker: asker{c, 2, o.each}}
			if len(o.arguments) == 3 {
				w.port = o.arguments[2]
			}
			for i, name := range o.arguments[:2] {
				var err error
				if w.ends[i].namespace, w.ends[i].name, err = podNamed(name, o.podNamespace()); err != nil {
					return 0, err
				}
			}
			if err := w.gather(ctx, o.namespace); err != nil {
				return 0, err
			}
			found := w.judge()
			if o.output == "json" {
				return found.exit(), printJSON(out, found)
			}
			found.print(out)
			return found.exit(), nil
		}
	},
}

// podNamed reads namespace/name, or name in the namespace that the context says.
func podNamed(text, byDefault string) (namespace, name string, err error) {
	namespace, name, is := strings.Cut(text, "/")
	if !is {
		namespace, name = byDefault, text
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%q is not a pod, as in web-1 or shop/web-1", text)
	}
	return namespace, name, nil
}

// States of a step.
const (
	stepFine    = "ok"
	stepWrong   = "WRONG"
	stepUnknown = "?"
	stepNote    = "note"
)

// step is one thing on the way.
type step struct {
	State  string `json:"state"`
	About  string `json:"about"`
	Says   string `json:"says"`
	Advice string `json:"advice,omitempty"`
}

// wayFound is what `kubectl flatnet why` prints.
type wayFound struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Port  string `json:"port,omitempty"`
	Steps []step `json:"steps"` // in the order of the way
}

func (f *wayFound) add(state, about, says, advice string) {
	f.Steps = append(f.Steps, step{state, about, says, advice})
}

// first is the first step of a state.
func (f *wayFound) first(state string) (step, bool) {
	for _, s := range f.Steps {
		if s.State == state {
			return s, true
		}
	}
	return step{}, false
}

func (f *wayFound) exit() int {
	if _, is := f.first(stepWrong); is {
		return exitWrong
	}
	if _, is := f.first(stepUnknown); is {
		return exitUnknown
	}
	return exitFine
}

// print writes it for people: the way, and what it comes to.
func (f *wayFound) print(w io.Writer) {
	port := ""
	if f.Port != "" {
		port = ", port " + f.Port
	}
	fmt.Fprintf(w, "from %s to %s%s\n\n", f.From, f.To, port)
	for _, s := range f.Steps {
		fmt.Fprintf(w, "%-5s  %s: %s\n", s.State, s.About, s.Says)
	}
	fmt.Fprintln(w)
	if s, is := f.first(stepWrong); is {
		fmt.Fprintf(w, "wrong: %s: %s\n", s.About, s.Says)
		if s.Advice != "" {
			fmt.Fprintf(w, "  %s\n", s.Advice)
		}
		return
	}
	if s, is := f.first(stepUnknown); is {
		fmt.Fprintf(w, "nothing wrong is seen, but not all could be found out: %s: %s\n", s.About, s.Says)
		if s.Advice != "" {
			fmt.Fprintf(w, "  %s\n", s.Advice)
		}
		return
	}
	fmt.Fprintln(w, `nothing is wrong as far as flatnetd sees: look at what is between the nodes (docs/operations.md,
"Pods of one node do not reach those of another"), and whether the program listens in the pod`)
}
