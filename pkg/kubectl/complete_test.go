package kubectl

import (
	"flag"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"":                             "status why check bugreport version :4",
		"st":                           "status :4",
		"stx":                          ":4",
		"status ":                      ":4",
		"status --e":                   "--each :4",
		"status -o ":                   "json :4",
		"status --each ":               ":4",
		"status --kubeconfig ":         ":0",
		"status --kubeconfig f --cont": "--context :4",
		"why a b --n":                  "--namespace :4",
		"check --no":                   "--nodes :4",
		"status --no":                  ":4",
		"bugreport -o ":                ":0",
		"nothing -":                    ":4",
		"version -":                    ":4",
	} {
		var out strings.Builder
		Complete(strings.Split(line, " "), &out)
		var got []string
		for l := range strings.Lines(out.String()) {
			word, does, described := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
			if described != !strings.HasPrefix(word, ":") || described && does == "" {
				t.Errorf("%q: the line %q", line, l)
			}
			got = append(got, word)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q becomes %q, want %q", line, got, want)
		}
	}
	var out strings.Builder
	Complete(nil, &out)
	if !strings.HasPrefix(out.String(), "status\t") {
		t.Errorf("nothing becomes %q", out.String())
	}
}

// What follows a flag is taken for its value, which is only right if each has one.
func TestEachFlagHasAValue(t *testing.T) {
	for _, c := range commands {
		set := flag.NewFlagSet(c.name, flag.ContinueOnError)
		o := &options{}
		o.flags(set, c.timeout)
		c.prepare(set, o)
		set.VisitAll(func(f *flag.Flag) {
			if b, is := f.Value.(interface{ IsBoolFlag() bool }); is && b.IsBoolFlag() {
				t.Errorf("-%s of %s has no value: valuesOf has to know that", f.Name, c.name)
			}
		})
	}
}
