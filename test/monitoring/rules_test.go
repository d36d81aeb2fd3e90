package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/flatnet-cni/flatnet/test/reference"
)

type rule struct {
	Alert       string            `json:"alert,omitempty"`
	Record      string            `json:"record,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type ruleFile struct {
	Groups []group `json:"groups"`
}

func rules(t *testing.T) (f ruleFile) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(read(t, "deploy", "monitoring", "rules.yaml")), &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Groups) != 1 || len(f.Groups[0].Rules) == 0 {
		t.Fatalf("the rules are in %d groups, want one with all", len(f.Groups))
	}
	return f
}

// promtool runs it. test/prepare.sh puts it into bin/, which `make test` calls.
func promtool(t *testing.T, arguments ...string) {
	t.Helper()
	program := reference.Path(t, "bin", "promtool")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("promtool"); err != nil {
			t.Skip("promtool is missing, in bin/ and in PATH, so alerts and queries go untested: `test/prepare.sh test` on Debian puts it into bin/, elsewhere it is in the package prometheus")
		}
	}
	if out, err := exec.Command(program, arguments...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}

// write makes a file that promtool reads.
func write(t *testing.T, directory, name string, content any) string {
	t.Helper()
	text, is := content.([]byte)
	if !is {
		var err error
		if text, err = yaml.Marshal(content); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(directory, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every alert fires when it should, as alerts.yaml says, and has what the person who is
// woken by it needs.
func TestAlerts(t *testing.T) {
	all := rules(t)
	known := known(t)
	cases := read(t, "test", "monitoring", "alerts.yaml")
	value := regexp.MustCompile(`\$labels\.(\w+)`)
	for i, r := range all.Groups[0].Rules {
		var labels []string
		for _, text := range r.Annotations {
			for _, m := range value.FindAllStringSubmatch(text, -1) {
				labels = append(labels, m[1])
			}
		}
		check(t, known, "alert "+r.Alert, r.Expr, slices.DeleteFunc(labels, func(l string) bool {
			return strings.Contains(r.Expr, fmt.Sprintf(`"%s", "`, l)) // made by label_replace
		}))
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || r.For == "" {
			t.Errorf("alert %s has severity %q, and is for %q", r.Alert, r.Labels["severity"], r.For)
		}
		for _, needed := range []string{"summary", "description", "runbook"} {
			if r.Annotations[needed] == "" {
				t.Errorf("alert %s has no %s", r.Alert, needed)
			}
		}
		quiet := regexp.MustCompile(`\{eval_time: \w+, alertname: ` + r.Alert + `\}`)
		fires := regexp.MustCompile(`alertname: ` + r.Alert + `\n +exp_alerts:`)
		if !quiet.MatchString(cases) || !fires.MatchString(cases) {
			t.Errorf("alerts.yaml does not say both when alert %s fires and when it does not", r.Alert)
		}
		all.Groups[0].Rules[i].Annotations = map[string]string{"summary": r.Annotations["summary"]}
	}
	if page := read(t, "docs", "monitoring.md"); !strings.Contains(page, alertTable(rules(t))) {
		t.Errorf("docs/monitoring.md has another table of the alerts than\n%s", alertTable(rules(t)))
	}
	promtool(t, "check", "rules", reference.Path(t, "deploy", "monitoring", "rules.yaml"))
	directory := t.TempDir()
	write(t, directory, "rules.yaml", all)
	promtool(t, "test", "rules", write(t, directory, "alerts.yaml", []byte(cases)))
}

// The object for the Operator has the same rules.
func TestPrometheusRule(t *testing.T) {
	var lines bytes.Buffer
	fmt.Fprint(&lines, `# Made out of rules.yaml by `+"`go test ./test/monitoring -update`"+`; change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: flatnet
  namespace: flatnet
  labels:
    app.kubernetes.io/name: flatnetd
    app.kubernetes.io/part-of: flatnet
spec:
`)
	_, groups, _ := strings.Cut(read(t, "deploy", "monitoring", "rules.yaml"), "\ngroups:\n")
	for line := range strings.Lines("groups:\n" + groups) {
		if line != "\n" {
			fmt.Fprint(&lines, "  ")
		}
		fmt.Fprint(&lines, line)
	}
	want := lines.String()
	if *update {
		if err := os.WriteFile(reference.Path(t, "deploy", "monitoring", "prometheusrule.yaml"), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, "deploy", "monitoring", "prometheusrule.yaml") != want {
		t.Error("deploy/monitoring/prometheusrule.yaml is not made out of rules.yaml: run go test ./test/monitoring -update")
	}
	var object struct {
		Spec json.RawMessage `json:"spec"`
	}
	plain, err := yaml.YAMLToJSON([]byte(read(t, "deploy", "monitoring", "rules.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(want), &object); err != nil || !bytes.Equal(object.Spec, plain) {
		t.Errorf("the object has %s, %v\nwant %s", object.Spec, err, plain)
	}
}

// alertTable is docs/monitoring.md's.
func alertTable(f ruleFile) string {
	text := "| alert | severity | after | what to do |\n|---|---|---|---|\n"
	for _, r := range f.Groups[0].Rules {
		text += fmt.Sprintf("| %s | %s | %s | %s |\n", r.Alert, r.Labels["severity"], r.For, strings.ReplaceAll(r.Annotations["runbook"], "|", `\|`))
	}
	return text
}
