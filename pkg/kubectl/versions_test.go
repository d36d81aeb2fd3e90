package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// agentsOf answers as the flatnetd of another version does on nodes n1 and n2, by the
// documents of a directory of testdata/agents. They are those of n1, with shop/web on it
// and shop/db on n2; n2's have both the other way round.
type agentsOf struct {
	directory string
	version   string // in place of that in the documents, where it is not ""
}

var asN2 = strings.NewReplacer(`"n1"`, `"n2"`, `"n2"`, `"n1"`, "node n1", "node n2", "10.1.", "10.2.", "10.2.", "10.1.", "fd00:1:", "fd00:2:", "shop/web", "shop/db",
	"172.30.0.1", "172.30.0.2", "172.30.0.2", "172.30.0.1", `"10.1.0.2"`, `"10.2.0.3"`)

func (a agentsOf) read(name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join("testdata", "agents", a.directory, name))
	if a.version != "" {
		raw = regexp.MustCompile(`"version": "[^"]*"`).ReplaceAll(raw, []byte(`"version": "`+a.version+`"`))
	}
	return string(raw), err
}

func (a agentsOf) execute(_ context.Context, e *apiserver.Execution) {
	command, file := strings.Join(e.Command, " "), ""
	switch {
	case command == "flatnetd status -o json --brief":
		file = "brief.json"
	case command == "flatnetd status -o json", command == "flatnetd version":
		file = "status.json"
	case command == "flatnetd status pods -o json":
		file = "pods.json"
	case strings.HasPrefix(command, "flatnetd policy explain -o json "):
		file = "explain.json"
	default:
		e.Out = []byte(command) // for a report alone
		return
	}
	text, err := a.read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.ErrOut, e.Exit = []byte("flag provided but not defined: -brief\nflatnetd joins …"), 2
		return
	case err != nil:
		e.ErrOut, e.Exit = []byte(err.Error()), 1
		return
	}
	if strings.HasSuffix(e.Pod, "-n2") && file != "explain.json" {
		text = strings.ReplaceAll(asN2.Replace(text), "10.2.0.2", "10.2.0.3")
	}
	e.Out = []byte(text)
	if command == "flatnetd version" {
		var said struct{ Version string }
		if err := json.Unmarshal(e.Out, &said); err != nil {
			e.ErrOut, e.Exit = []byte(err.Error()), 1
		}
		e.Out = []byte(said.Version + "\n")
	}
}

// outputs are what the commands print of agents, by their names.
func (a agentsOf) outputs(t *testing.T) map[string]string {
	t.Helper()
	l := newTrialLab(t, 2)
	l.server.Put(podOn("n1", "web", "10.1.0.2"))
	l.server.Put(podOn("n2", "db", "10.2.0.3"))
	l.server.Execute = func(ctx context.Context, e *apiserver.Execution) {
		if e.Namespace == "net" && e.Command[0] != "wget" {
			a.execute(ctx, e)
			return
		}
		l.execute(ctx, e)
	}
	report := filepath.Join(t.TempDir(), "report.tar.gz")
	all := map[string]string{}
	for name, arguments := range map[string][]string{"status": nil, "why": {"web", "db", "5432"}, "check": nil, "bugreport": {"-o", report}} {
		_, out, errOut := l.run(t, append([]string{name}, arguments...)...)
		if out == "" || strings.Contains(errOut, "kubectl flatnet:") {
			t.Errorf("%s fails: %s", name, errOut)
		}
		all[name] = out
	}
	all["versions.txt"] = unpack(t, report)["versions.txt"]
	return all
}

const (
	apart   = "are more than one minor release apart"
	misread = "says in another way than this program knows"
)

// Of an agent that is one minor release older or newer every command says what it knows,
// and finds nothing that it has to excuse.
func TestAgentsOfOtherVersions(t *testing.T) {
	for directory, wanted := range map[string]map[string][]string{
		"current": {
			"status":       {"2 nodes: 2 not ready; 28 pods; problems at 2 nodes", "n1    not ready  v1.2.3", "1 bgp, 1 none (n4), 1 vxlan (n2), 1 MISSING (n3)", "[peer-route]\n    look at `ip route get 172.99.0.4` on this node; and 1 thing that follows"},
			"why":          {"WRONG  attachment of shop/web on n1: route missing", "ok     route from n1 to shop/db: 10.2.0.0/24 by vxlan", "WRONG  policies on n1: ingress of shop/db is refused: no rule"},
			"check":        {"2 nodes: 2 not ready", "\nall paths work, but flatnetd is not well everywhere (above): 2 nodes"},
			"bugreport":    {"2 nodes asked"},
			"versions.txt": {"kubectl-flatnet v1.2.3\nflatnetd v1.2.3 at 2 nodes (n1 n2)\n"},
		},
		"before": {
			"status":       {"2 nodes: 2 ready; 24 pods; problems at 2 nodes", "  - 2 nodes (n1 n2): net.ipv4.ip_forward cannot be set [sysctl]\n", "n1    ready  v1.1.9   -   auto    12    1 direct, 1 vxlan (n2)  1"},
			"why":          {"ok     route from n1 to shop/db: 10.2.0.0/24 by vxlan via 172.30.0.2\n", "ok     policies on n1: they allow", "WRONG  node n1: net.ipv4.ip_forward cannot be set [sysctl]"},
			"check":        {"2 nodes: 2 ready", "\nall paths work, but"},
			"bugreport":    {"2 nodes asked"},
			"versions.txt": {"flatnetd v1.1.9 at 2 nodes (n1 n2)\n"},
		},
		"after": {
			"status":       {"2 nodes: 2 ready; 24 pods; problems at 2 nodes", "  - 2 nodes (n1 n2): qubit 7: has decayed [quantum-decay]\n    observe it; and 1 thing that follows from it: node n", "geneve  12    2 geneve, 1 asleep (n4)  1"},
			"why":          {"WRONG  attachment of shop/web on n1: entangled: it shares a state", "ok     route from n1 to shop/db: 10.2.0.0/24 by geneve via 172.30.0.2 dev flatnet.gn", "sideways of shop/db is refused: SidewaysPolicy shop/db refuses it", "WRONG  node n1: qubit 7: has decayed"},
			"check":        {"2 nodes: 2 ready", "\nall paths work, but"},
			"bugreport":    {"2 nodes asked"},
			"versions.txt": {"flatnetd v1.3.0 at 2 nodes (n1 n2)\n"},
		},
	} {
		t.Run(directory, func(t *testing.T) {
			for name, out := range (agentsOf{directory: directory}).outputs(t) {
				for _, part := range wanted[name] {
					if !strings.Contains(out, part) {
						t.Errorf("%s says\n%s\nwant in it\n%s", name, out, part)
					}
				}
				if strings.Contains(out, apart) || strings.Contains(out, misread) {
					t.Errorf("%s excuses itself:\n%s", name, out)
				}
			}
		})
	}
}

// What agents of a release said is read by the one after it. docs/releasing.md says when
// an answer is kept.
func TestAgentsOfReleases(t *testing.T) {
	changelog, err := os.ReadFile(filepath.Join("..", "..", "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := keptMinors(string(changelog))
	found, err := filepath.Glob(filepath.Join("testdata", "agents", "v*"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, directory := range found {
		got = append(got, filepath.Base(directory))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("testdata/agents has the answers of %v, and should have those of the last two minor releases, %v: docs/releasing.md", got, want)
	}
	for _, directory := range got {
		for name, out := range (agentsOf{directory, "v1.1.0"}).outputs(t) {
			if strings.Contains(out, misread) {
				t.Errorf("%s does not read what %s says:\n%s", name, directory, out)
			}
		}
	}
}

// keptMinors are the last two minor releases of a changelog, "v1.2".
func keptMinors(changelog string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^## \[(\d+\.\d+)\.\d+\]`).FindAllStringSubmatch(changelog, -1) {
		if minor := "v" + m[1]; !slices.Contains(all, minor) && len(all) < 2 {
			all = append(all, minor)
		}
	}
	return all
}

func TestKeptMinors(t *testing.T) {
	const changelog = "## [Unreleased]\n\n## [1.2.1] - 2026-12-31\n## [1.2.0] - 2026-12-30\n## [1.2.0-rc.1] - 2026\n## [1.1.4] - 2026\n## [1.0.0] - 2026\n"
	if got := fmt.Sprint(keptMinors(changelog), keptMinors("## [Unreleased]\n")); got != "[v1.2 v1.1] []" {
		t.Error(got)
	}
}

// Of agents that are further away every command says so, and what it cannot read; and
// nothing of that is called wrong.
func TestAgentsTooFarAway(t *testing.T) {
	const notice = "kubectl-flatnet v1.2.3 and flatnetd v1.9.0 at 2 nodes (n1 n2) are more than one minor release apart: what is said of them may be wrong or incomplete; use the kubectl-flatnet of their version\n"
	far := agentsOf{directory: "far"}.outputs(t)
	for name, out := range far {
		if !strings.Contains(out, notice) {
			t.Errorf("%s does not say that versions are apart:\n%s", name, out)
		}
	}
	for name, parts := range map[string][]string{
		"status": {"2 nodes: 2 ready;", "  - 2 nodes (n1 n2): flatnetd v1.9.0 " + misread + ": fabric, joined, pods, ready\n    use the kubectl-flatnet"},
		"check":  {"flatnetd v1.9.0 " + misread, "\nall paths work, but"},
		"why":    {"?      route from n1 to shop/db: flatnetd v1.9.0 " + misread + ": peers\n", "?      node n1: flatnetd v1.9.0 " + misread + ": fabric, peers, pods, ready\n"},
	} {
		for _, part := range parts {
			if !strings.Contains(far[name], part) {
				t.Errorf("%s says\n%s\nwant in it\n%s", name, far[name], part)
			}
		}
		if strings.Contains(far[name], "WRONG") {
			t.Errorf("%s takes for wrong what it does not understand:\n%s", name, far[name])
		}
	}
	for version, want := range map[string]bool{"v1.0.9": true, "v1.1.0": false, "v1.3.0-rc.1": false, "v1.4.0": true, "v2.2.3": true, "v1.2.3-14-gabcdef0-dirty": false, "abcdef0": false, "development": false} {
		if farApart("v1.2.3", version) != want {
			t.Errorf("that v1.2.3 and %s are too far apart is not %v", version, want)
		}
	}
}
