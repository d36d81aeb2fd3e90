package apiwatch

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects are handed on as they come, those of another type are an error, and nothing of a
// list that has one is handed on.
func TestStore(t *testing.T) {
	var told []string
	s := Store[*v1.Node]{
		Set:      func(n *v1.Node) { told = append(told, "set "+n.Name) },
		Drop:     func(n *v1.Node) { told = append(told, "drop "+n.Name) },
		Replaced: func(all []*v1.Node) { told = append(told, fmt.Sprintf("%d nodes", len(all))) },
	}
	node := func(name string) *v1.Node { return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	for _, err := range []error{s.Add(node("a")), s.Update(node("b")), s.Delete(node("c")), s.Replace([]any{node("a"), node("b")}, "7"), s.Replace(nil, "8")} {
		if err != nil {
			t.Error(err)
		}
	}
	for i, err := range []error{s.Add(&v1.Pod{}), s.Update(&v1.Pod{}), s.Delete(&v1.Pod{}), s.Replace([]any{node("a"), &v1.Pod{}}, "9")} {
		if err == nil {
			t.Errorf("%d: a Pod is no error", i)
		}
	}
	if got, want := fmt.Sprint(told), "[set a set b drop c 2 nodes 0 nodes]"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	if s.Transformer() != nil {
		t.Error("there is something to strip")
	}
}

func TestOlder(t *testing.T) {
	for _, test := range []struct {
		version, than string
		want          bool
	}{{"9", "10", true}, {"10", "9", false}, {"10", "10", false}, {"", "10", false}, {"10", "", false}, {"a", "b", false}} {
		if got := Older(test.version, test.than); got != test.want {
			t.Errorf("Older(%q, %q) is %t", test.version, test.than, got)
		}
	}
}
