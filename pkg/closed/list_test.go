package closed

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	l := List{
		Namespaces: map[string][]string{"in": {Ingress}, "out": {Egress}, "both": {Egress, Ingress}, "free": {}},
		Others:     []string{Ingress},
	}
	for namespace, want := range map[string]string{
		"in": "true false", "out": "false true", "both": "true true", "free": "false false", "new": "true false", "": "true false",
	} {
		if got := fmt.Sprint(l.Of(namespace)); got != want {
			t.Errorf("%q: %s, want %s", namespace, got, want)
		}
	}
	if ingress, egress := (List{}).Of("any"); ingress || egress {
		t.Error("a list of nothing closes something")
	}
}

func TestWrittenListIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "policies.json")
	if l, err := Read(path); err != nil || !reflect.DeepEqual(l, List{}) {
		t.Errorf("without a file: %v, %v", l, err)
	}
	for _, l := range []List{
		{Namespaces: map[string][]string{"prod": {Ingress, Egress}, "free": {}}, Others: []string{Ingress}, WithoutAgent: BeOpen},
		{Namespaces: map[string][]string{"prod": {Ingress}}, WithoutAgent: StayClosed},
		{Namespaces: map[string][]string{}},
	} {
		if err := Write(path, l); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("read %+v, %v; want %+v", got, err, l)
		}
	}
	if err := Write(path, List{}); err != nil {
		t.Error(err)
	}
	if l, err := Read(path); err != nil || len(l.Namespaces) != 0 {
		t.Errorf("list of nothing: %v, %v", l, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, %v", entries, err)
	}
}

// What is not written: it would be refused when it is read, and the old list stays.
func TestListThatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.json")
	old := List{Namespaces: map[string][]string{"prod": {Ingress}}}
	if err := Write(path, old); err != nil {
		t.Fatal(err)
	}
	for want, l := range map[string]List{
		`"sideways"`: {Namespaces: map[string][]string{"prod": {"sideways"}}},
		`others`:     {Others: []string{""}},
		`"maybe"`:    {WithoutAgent: "maybe"},
	} {
		if err := Write(path, l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s in it", l, err, want)
		}
	}
	if got, err := Read(path); err != nil || !reflect.DeepEqual(got, old) {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestUnreadableList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.json")
	for _, text := range []string{
		``, `{`, `[]`, `null`, `{}`, `{"namespaces": null}`, `{"namespaces": ["prod"]}`, `{"namespaces": {"prod": "ingress"}}`,
		`{"namespaces": {"prod": ["inward"]}}`, `{"namespaces": {}, "others": ["x"]}`, `{"namespaces": {}, "withoutAgent": "x"}`,
		`{"namespaces": {}} {}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := Read(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: read %+v, %v", text, l, err)
		}
	}
	if _, err := Read(filepath.Dir(path)); err == nil {
		t.Error("a directory was read")
	}
}
