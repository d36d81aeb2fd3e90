// Package console has what a program has printed by now, for tests that read it while the
// program runs.
package console

import (
	"bytes"
	"fmt"
	"regexp"
	"sync"
	"testing"

	"github.com/flatnet-cni/flatnet/test/pace"
)

// Output is written to by the program. The zero value is empty.
type Output struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// Await waits until something is printed that matches, and returns it and what is in the
// parentheses of the pattern.
func (o *Output) Await(t testing.TB, pattern *regexp.Regexp) (found []string) {
	t.Helper()
	_, err := pace.Await(pace.Far(), func() error {
		if found = pattern.FindStringSubmatch(o.String()); found == nil {
			return fmt.Errorf("nothing that matches %s is printed: %s", pattern, o)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
