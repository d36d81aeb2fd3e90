package kubectl

import (
	"encoding"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/pkg/policy"
)

// The answers of agents that kubectl flatnet reads. They embed what an agent puts together.
type (
	shapeOfStatus struct {
		shapeOfBoth
		agent.PeersStatus
	}
	shapeOfBrief struct {
		shapeOfBoth
		agent.BriefPeers
	}
	shapeOfBoth struct {
		agent.Head
		agent.FabricStatus
		agent.MasqueradeStatus
		agent.PodsStatus
		agent.ServicesStatus
		agent.BGPSummary
		agent.BalancersStatus
		agent.PoliciesStatus
		agent.FastPathStatus
		agent.HostPortsStatus
		agent.RequirementsStatus
		agent.ProblemsStatus
	}
)

// shapes are what the documents of testdata/agents/current are encoded from.
var shapes = map[string]any{
	"status.json": shapeOfStatus{}, "brief.json": shapeOfBrief{}, "pods.json": agent.AttachedPods{}, "explain.json": policy.Explanation{},
}

// What is kept as an answer of today's agents has all of their fields, and no other: with
// the next minor release it becomes an answer of the agents before, which that
// release has to read. docs/releasing.md says when it is copied.
func TestCurrentAnswersAreUpToDate(t *testing.T) {
	for name, shape := range shapes {
		raw, err := os.ReadFile(filepath.Join("testdata", "agents", "current", name))
		if err != nil {
			t.Fatal(err)
		}
		var document any
		if err := json.Unmarshal(raw, &document); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, want := map[string]bool{}, map[string]bool{}
		pathsOfValue(document, "", got)
		pathsOfType(reflect.TypeOf(shape), "", nil, want)
		for path := range want {
			if !got[path] {
				t.Errorf("testdata/agents/current/%s lacks %s: agents say it, so add an example", name, path)
			}
		}
		for path := range got {
			// What a problem has, the problems that follow from it may have too.
			if !want[strings.ReplaceAll(path, ".follows.", ".")] {
				t.Errorf("testdata/agents/current/%s has %s, which agents no longer say: remove it", name, path)
			}
		}
	}
}

// Every part of a status that an agent puts together is in the shape.
func TestShapeHasEveryPart(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "agent", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`func \(s (\w+)\) part\(\) feature\.Part|Document: +(\w+)\{`).FindAllSubmatch(text, -1) {
			parts[string(m[1])+string(m[2])] = true
		}
		if made, known := strings.Count(string(text), "feature.Part{"), strings.Count(string(text), "feature.Part{Document: "); made != known {
			t.Errorf("%s makes parts in another way than this test looks for", file)
		}
	}
	if len(parts) < 5 {
		t.Errorf("only %v are found", slices.Sorted(maps.Keys(parts)))
	}
	for part := range parts {
		if _, is := reflect.TypeFor[shapeOfStatus]().FieldByName(part); !is {
			t.Errorf("agents say agent.%s: add it to shapeOfBoth", part)
		}
	}
}

// pathsOfValue notes all paths to values of a document, "pods.family", whatever list
// they are in.
func pathsOfValue(v any, at string, all map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			path := strings.TrimPrefix(at+"."+name, ".")
			all[path] = true
			pathsOfValue(value, path, all)
		}
	case []any:
		for _, value := range v {
			pathsOfValue(value, at, all)
		}
	}
}

// pathsOfType notes the same of what a type is encoded as. A type within itself is
// left out.
func pathsOfType(t reflect.Type, at string, within []reflect.Type, all map[string]bool) {
	switch {
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice:
		pathsOfType(t.Elem(), at, within, all)
		return
	case t.Kind() != reflect.Struct || t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return
	}
	within = append(slices.Clone(within), t)
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" || name == "-" || !f.IsExported() || len(f.Index) > 1 && !embedded(t, f) {
			continue
		}
		if name == "" {
			name = f.Name
		}
		path := strings.TrimPrefix(at+"."+name, ".")
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		all[path] = true
		if !slices.Contains(within, inner) {
			pathsOfType(inner, path, within, all)
		}
	}
}

// embedded reports whether a promoted field is one of an embedded struct that is encoded
// as a part of the whole, and not below a name of its own.
func embedded(t reflect.Type, f reflect.StructField) bool {
	outer := t.FieldByIndex(f.Index[:len(f.Index)-1])
	return outer.Tag.Get("json") == ""
}
