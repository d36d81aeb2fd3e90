package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestPolicies(t *testing.T) {
	found, err := measurePolicies(t.Context(), network(t))
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprint(found)
	for _, want := range []string{
		"| 10 policies, 50 pods, 3 here ", "| 1,000 policies, 10 of them select the pods ", ": first sync ", "flatnetd, memory more than without",
		"the same |     yes", "a new connection, more with 1 policy ", "from ADD's return to open, 4 at once: median ", "4 at once: worst ", "while pods come and go: worst",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
}
