package kubectl

import (
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"":                             "status why flows check ui bugreport version :4",
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
		"ui --po":                      "--port :4",
		"ui --open --por":              "--port :4",
		"ui --open ":                   ":4",
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
