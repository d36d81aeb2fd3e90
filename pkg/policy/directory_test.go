package policy

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/pace"
)

const policyFile = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %s, namespace: shop}
spec: {podSelector: {}}
`

const podFile = `apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i}], unknownToThisVersion: 1}
status: {podIPs: [{ip: %s}]}
`

// files is a directory that a source reads.
type files struct {
	t    *testing.T
	path string
}

// write puts a file into place at once.
func (f files) write(name, text string) {
	f.t.Helper()
	must(f.t, os.WriteFile(f.path+"/.new", []byte(text), 0o600))
	must(f.t, os.Rename(f.path+"/.new", filepath.Join(f.path, name)))
}

func (f files) remove(name string) { must(f.t, os.Remove(filepath.Join(f.path, name))) }

func (f files) run() *running {
	d := NewDirectory(f.path, slog.New(slog.DiscardHandler))
	if d.Known() || d.Check() == nil {
		f.t.Error("everything is known before it runs")
	}
	go d.Run(f.t.Context())
	return &running{d, f.t, map[string]string{}}
}

// saysAll waits until Check says all of that.
func (r *running) saysAll(want ...string) {
	r.t.Helper()
	_, err := pace.Await(pace.Far(), func() error {
		err := r.Check()
		for _, w := range want {
			if !strings.Contains(fmt.Sprint(err), w) {
				return fmt.Errorf("the source says %v, and not %s", err, w)
			}
		}
		return nil
	})
	must(r.t, err)
}

const shop = "namespace shop kubernetes.io/metadata.name=shop"

func TestDirectory(t *testing.T) {
	f := files{t, t.TempDir()}
	f.write("policies.yaml", fmt.Sprintf(policyFile, "a")+"---\n# nothing\n---\n"+fmt.Sprintf(policyFile, "b"))
	f.write("pods.yml", fmt.Sprintf(podFile, "web", "10.0.0.1"))
	f.write("README.md", "no object")
	f.write(".hidden.yaml", "no object")
	f.write("more.json", `{"apiVersion": "v1", "kind": "List", "items": [
		{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": {"team": "a"}}},
		{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "all"}, "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}}, "status": {"conditions": []}}
	]} {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "d"}, "status": {"podIP": "10.0.0.4"}}, {"metadata": {"name": "host"}, "spec": {"hostNetwork": true}}]}`)
	r := f.run()
	common := []string{"ClusterNetworkPolicy all", "namespace team kubernetes.io/metadata.name=team,team=a", "namespace default kubernetes.io/metadata.name=default", "pod default/d [10.0.0.4]"}
	all := func(more ...string) []string { return append(more, common...) }
	r.await("all", all("NetworkPolicy shop/a", "NetworkPolicy shop/b", shop, "pod shop/web [10.0.0.1]")...)
	r.settles(true)

	f.write("pods.yml", fmt.Sprintf(podFile, "web", "10.0.0.2"))
	r.await("a file changes", all("NetworkPolicy shop/a", "NetworkPolicy shop/b", shop, "pod shop/web [10.0.0.2]")...)
	f.write("policies.yaml", fmt.Sprintf(policyFile, "b"))
	r.await("an object vanishes from a file", all("NetworkPolicy shop/b", shop, "pod shop/web [10.0.0.2]")...)
	f.remove("pods.yml")
	r.await("a file vanishes", all("NetworkPolicy shop/b")...)
	f.write("c.yaml", fmt.Sprintf(policyFile, "c"))
	r.await("one comes", all("NetworkPolicy shop/b", "NetworkPolicy shop/c")...)
	r.settles(true)
	f.write("nodes.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: Hostname, address: n1}, {type: ExternalIP, address: 192.0.2.1}, {type: InternalIP, address: 10.1.0.1}]}")
	r.await("a node", all("NetworkPolicy shop/b", "NetworkPolicy shop/c", "node n1 [10.1.0.1 192.0.2.1]")...)
	f.write("nodes2.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n")
	r.saysAll("nodes2.yaml: the node n1 is there twice, and the first is taken")
	f.remove("nodes2.yaml")
	f.remove("nodes.yaml")
	r.await("it goes", all("NetworkPolicy shop/b", "NetworkPolicy shop/c")...)
	r.settles(true)

	// What cannot be read leaves the rest, and what was good before, as it is.
	f.write("c.yaml", "{")
	r.saysAll("c.yaml: document 1: ", "; the 1 objects read before stay", "since ")
	f.write("d.yaml", fmt.Sprintf(policyFile, "d"))
	r.await("another comes", all("NetworkPolicy shop/b", "NetworkPolicy shop/c", "NetworkPolicy shop/d")...)
	f.write("c.yaml", strings.Replace(fmt.Sprintf(policyFile, "c"), "podSelector", "podSelecter", 1))
	r.saysAll(`c.yaml: document 1: NetworkPolicy shop/c: json: unknown field "podSelecter"; the 1 objects read before stay`)
	f.write("c.yaml", fmt.Sprintf(policyFile, "c")+"---\n"+"apiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\napiVersion: networking.k8s.io/v2\nkind: NetworkPolicy\nmetadata: {name: s}\n---\n"+fmt.Sprintf(policyFile, "d"))
	r.saysAll("c.yaml: Service s is of no use here", "c.yaml: NetworkPolicy s is of no use here", "d.yaml: the NetworkPolicy shop/d is there twice, and the first is taken")
	f.write("c.yaml", strings.Replace(fmt.Sprintf(policyFile, "c"), "podSelector: {}", "podSelector: {matchLabels: {a: a b}}", 1))
	r.saysAll(`NetworkPolicy shop/c: spec.podSelector: "a=a b" cannot be understood: `, "; what it said before is in force")
	if got := r.Take().text(); got != "" {
		t.Errorf("a policy that is none now: told is %s", got)
	}
	f.remove("c.yaml")
	r.settles(true)

	// The directory goes, and another comes.
	must(t, os.Rename(f.path, f.path+".old"))
	r.saysAll("no such file or directory; what was read before stays")
	must(t, os.Mkdir(f.path, 0o700))
	f.write("e.yaml", fmt.Sprintf(policyFile, "e"))
	r.await("another directory", "NetworkPolicy shop/e")
	f.write("f.yaml", fmt.Sprintf(policyFile, "f"))
	r.await("which is watched, too", "NetworkPolicy shop/e", "NetworkPolicy shop/f")
}

// Half a file can be a valid one. It is read when its writer closes it.
func TestFileBeingWritten(t *testing.T) {
	f := files{t, t.TempDir()}
	f.write("a.yaml", fmt.Sprintf(policyFile, "a")+"---\n"+fmt.Sprintf(policyFile, "b"))
	r := f.run()
	r.await("all", "NetworkPolicy shop/a", "NetworkPolicy shop/b")
	file, err := os.Create(filepath.Join(f.path, "a.yaml"))
	must(t, err)
	fmt.Fprintf(file, policyFile, "b")
	// What comes to another file meanwhile has it read, and this one not.
	f.write("c.yaml", fmt.Sprintf(policyFile, "c"))
	r.await("another file", "NetworkPolicy shop/a", "NetworkPolicy shop/b", "NetworkPolicy shop/c")
	fmt.Fprint(file, "---\n")
	fmt.Fprintf(file, policyFile, "d")
	must(t, file.Close())
	r.await("it is closed", "NetworkPolicy shop/b", "NetworkPolicy shop/c", "NetworkPolicy shop/d")
}

// A ConfigMap's directory, and how the kubelet changes it.
func TestConfigMap(t *testing.T) {
	f := files{t, t.TempDir()}
	put := func(version, name string) {
		must(t, os.Mkdir(filepath.Join(f.path, version), 0o700))
		must(t, os.WriteFile(filepath.Join(f.path, version, "p.yaml"), fmt.Appendf(nil, policyFile, name), 0o600))
		must(t, os.Symlink(version, filepath.Join(f.path, "..data_tmp")))
		must(t, os.Rename(filepath.Join(f.path, "..data_tmp"), filepath.Join(f.path, "..data")))
	}
	put("..1", "a")
	must(t, os.Symlink("..data/p.yaml", filepath.Join(f.path, "p.yaml")))
	r := f.run()
	r.await("the first", "NetworkPolicy shop/a")
	put("..2", "b")
	r.await("the second", "NetworkPolicy shop/b")
}

// The directory is waited for.
func TestDirectoryThatComes(t *testing.T) {
	f := files{t, filepath.Join(t.TempDir(), "policies")}
	r := f.run()
	r.saysAll("no such file or directory; waiting for it")
	if r.Known() {
		t.Error("everything is known without the directory")
	}
	must(t, os.Mkdir(f.path, 0o700))
	r.settles(true)
	if got := r.Take().text(); got != "" || !r.Known() {
		t.Errorf("told is %q, known %v", got, r.Known())
	}
	must(t, os.WriteFile(filepath.Join(f.path, "a.yaml"), fmt.Appendf(nil, policyFile, "a"), 0o600))
	r.await("a file", "NetworkPolicy shop/a")
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "0 []"},
		{"comments", "# one\n---\n---\n# two\n", "0 []"},
		{"a typed list", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems: [{metadata: {name: a}, spec: {podSelector: {}}, status: {}}]", "1 []"},
		{"a list in a list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: a}}]}]", "1 []"},
		{"no kind", "a: b", "0 [an object without a kind ]"},
		{"no object", "- a", "document 1: json: cannot unmarshal array into Go value of type policy.head"},
		{"no name", "apiVersion: v1\nkind: Pod", "document 1: a Pod has no name"},
		{"a key twice", "apiVersion: v1\nkind: Pod\nkind: Pod", "document 1: yaml: unmarshal errors:\n  line 3: key \"kind\" already set in map"},
		{"in a list", "---\napiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod}]", "document 1: item 1 of the List: a Pod has no name"},
	} {
		f, err := parse([]byte(c.text), false)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(f.count(), " ", f.others)
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	f, err := parse([]byte(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}`), true)
	must(t, err)
	if len(f.pods) != 1 || f.pods[0].Namespace != "default" {
		t.Errorf("a pod without a namespace is %v", f.pods)
	}
	if _, err := parse([]byte(`{"apiVersion": "v1"`), true); fmt.Sprint(err) != "document 1: unexpected EOF" {
		t.Errorf("half of JSON: %v", err)
	}
}
