package kubectl

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// unpack reads a report: its files by their names below its directory.
func unpack(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		files[name] = string(content)
	}
}

// Words that are secret where reporting puts them.
const (
	jwt       = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"
	bootstrap = "abcdef.0123456789abcdef"
	hidden    = "correct-horse-battery"
	pem       = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIHidden\n-----END EC PRIVATE KEY-----"
)

func TestBugreport(t *testing.T) {
	l := newLab(t, 4)
	l.server.Remove(agentOn("n3"))
	again := agentOn("n1")
	again.Annotations = map[string]string{v1.LastAppliedConfigAnnotation: hidden, "example.org/note": "token=" + hidden}
	again.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "flatnetd", RestartCount: 2}}
	l.server.Put(again)
	set := daemonSet()
	set.Spec.Template.Spec.Containers = []v1.Container{{Name: "flatnetd", Image: "flatnet:v1", Env: []v1.EnvVar{
		{Name: "REGISTRY_PASSWORD", Value: hidden}, {Name: "HTTPS_PROXY", Value: "http://eve:" + hidden + "@proxy:3128"}, {Name: "NODE_NAME", Value: "plain"},
	}}}
	l.server.Put(set)
	l.server.Put(&v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "net", Name: "flatnet", Labels: map[string]string{"app.kubernetes.io/part-of": "flatnet"}},
		Data:       map[string]string{"FLATNETD_FABRIC": "auto", "API_TOKEN": hidden, "tls.key": pem},
	})
	l.server.Put(&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "net", Name: "somebody's"}})
	l.server.Log = func(namespace, pod string, previous bool) string {
		if previous {
			return "it crashed"
		}
		return pod + " says: Authorization: Bearer " + hidden + "\n" + jwt + " " + bootstrap + "\n" + pem
	}
	l.server.Execute = func(_ context.Context, e *apiserver.Execution) {
		switch command := strings.Join(e.Command, " "); command {
		case "nft list ruleset":
			e.ErrOut, e.Exit = []byte("exec: nft: not found"), 127
		case "flatnetd status bgp -o json":
			e.Out = []byte(`{"peers": [{"name": "rack", "reason": "password: \"` + hidden + `\"", "password": "` + hidden + `"}]}`)
		case "flatnetd status -o json":
			e.Out, _ = json.Marshal(fine(strings.TrimPrefix(e.Pod, "flatnetd-")))
		default:
			e.Out = []byte(command)
		}
	}
	file := filepath.Join(t.TempDir(), "report.tar.gz")
	exit, out, errOut := l.run(t, "bugreport", "-o", file)
	if exit != exitFine || !strings.HasPrefix(out, file+": 4 nodes asked; 5 things not collected") {
		t.Fatalf("exit status %d, %s%s", exit, out, errOut)
	}
	files := unpack(t, file)
	want := []string{"README.txt", "configmaps.json", "daemonset.json", "nodes.json", "not-collected.txt", "pods.json", "versions.txt"}
	for _, node := range []string{"n1", "n2", "n4"} {
		for _, name := range []string{"addresses", "log", "metrics", "neighbours", "routes", "routes6", "rules", "rules6", "version"} {
			want = append(want, "nodes/"+node+"/"+name+".txt")
		}
		for _, name := range []string{"announcements", "bgp", "flows", "pods", "policies", "services", "status"} {
			want = append(want, "nodes/"+node+"/"+name+".json")
		}
	}
	want = append(want, "nodes/n1/log-previous.txt")
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("files are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, content := range map[string]string{
		"nodes/n4/routes6.txt": "ip -6 route show table all", "configmaps.json": `"FLATNETD_FABRIC":"auto"`, "daemonset.json": `"value": "plain"`,
		"nodes.json": `"name":"n3"`, "nodes/n2/status.json": `"version":"v1.2.3"`, "nodes/n1/log.txt": "flatnetd-n1 says: ",
	} {
		if !strings.Contains(files[name], content) {
			t.Errorf("%s lacks %q:\n%s", name, content, files[name])
		}
	}
	const missing = `kubernetes-version.json: GET /version is not list or watch of what is known here
nodes/n1/nft.txt: exec: nft: not found
nodes/n2/nft.txt: exec: nft: not found
nodes/n3: no flatnetd pod is on it, though DaemonSet flatnetd selects it
nodes/n4/nft.txt: exec: nft: not found
`
	if got := files["not-collected.txt"]; got != missing {
		t.Errorf("not collected is\n%s\nwant\n%s", got, missing)
	}
	for name, content := range files {
		for line := range strings.Lines(content) {
			if lists := []string{"configmaps.json", "nodes.json", "pods.json"}; slices.Contains(lists, name) && !json.Valid([]byte(line)) {
				t.Errorf("%s has a line that is no JSON: %s", name, line)
			}
		}
		for _, secret := range []string{hidden, jwt, bootstrap, "MHcCAQEEIHidden", "c2lnbmF0dXJl"} {
			if strings.Contains(content, secret) {
				t.Errorf("%s has %q:\n%s", name, secret, content)
			}
		}
	}
	for _, name := range []string{"daemonset.json", "nodes/n1/status.json"} {
		if !json.Valid([]byte(files[name])) {
			t.Errorf("%s is no JSON:\n%s", name, files[name])
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the report's mode is %v, %v", info.Mode(), err)
	}
	if exit, _, errOut := l.run(t, "bugreport", "-o", file); exit != exitUnknown || !strings.Contains(errOut, "is there already") {
		t.Error(exit, errOut)
	}
	one := filepath.Join(t.TempDir(), "one.tar.gz")
	if exit, out, errOut := l.run(t, "bugreport", "-o", one, "--nodes", "n4"); exit != exitFine || !strings.Contains(out, "1 node asked") {
		t.Error(exit, out, errOut)
	}
	if exit, _, errOut := l.run(t, "bugreport", "--nodes", "n4,n9"); exit != exitUnknown || !strings.Contains(errOut, "no such node") {
		t.Error(exit, errOut)
	}
}

// What is let in with is not let out, and what only looks like it stays.
func TestRedact(t *testing.T) {
	l := newLab(t, 0)
	l.config.BearerToken = "opaque0815"
	r := newRedactor(l.config)
	for text, want := range map[string]string{
		"asked with opaque0815":                                  "asked with [left out]",
		`{"clientSecret": "a\"b", "next": 1}`:                    `{"clientSecret": "[left out]", "next": 1}`,
		`{"note":"token=abc"}`:                                   `{"note":"token=[left out]"}`,
		`{"line":"{\"password\":\"a b\",\"n\":1}"}`:              `{"line":"{\"password\":\"[left out]\",\"n\":1}"}`,
		`{"config.yaml":"token: \"a b\"\nmtu: 5"}`:               `{"config.yaml":"token: \"[left out]\"\nmtu: 5"}`,
		"client-key-data: LS0tLS1CRUdJTg==":                      "client-key-data: [left out]",
		`{"token": 5}`:                                           `{"token": 5}`,
		"api-key: abc, more":                                     `api-key: [left out], more`,
		"passwd='a b' x":                                         `passwd='[left out]' x`,
		`{"secret": {"name": "x"}}`:                              `{"secret": {"name": "x"}}`,
		"10.244.1.0/24 dev veth0 proto 70":                       "10.244.1.0/24 dev veth0 proto 70",
		"https://user:pw@host/x https://host:8080/":              `https://user:[left out]@host/x https://host:8080/`,
		`serviceAccountToken: projected, tokens of conntrack: 3`: `serviceAccountToken: [left out], tokens of conntrack: 3`,
	} {
		if got := string(r.clean([]byte(text))); got != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
	}
}
