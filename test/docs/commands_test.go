package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/reference"
)

var (
	goTest = regexp.MustCompile("go test[^`\n]*")
	runs   = regexp.MustCompile(`\./([\w/]+)[^#]* -run '?([\w|^$]+)`)
	made   = regexp.MustCompile("`make ([a-z][a-z0-9-]*)|(?m)^    make ([a-z][a-z0-9-]*)")
)

// Tests that a page says how to run are there, and what a page says that `make` makes.
func TestCommands(t *testing.T) {
	makefile, err := os.ReadFile(reference.Path(t, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	tests, targets := 0, 0
	for page, text := range pages(t) {
		for _, command := range goTest.FindAllString(text, -1) {
			m := runs.FindStringSubmatch(command)
			if m == nil {
				continue
			}
			tests++
			if !hasTest(t, m[1], m[2]) {
				t.Errorf("%s says `%s`, and %s has no such test", page, strings.TrimSpace(command), m[1])
			}
		}
		for _, m := range made.FindAllStringSubmatch(text, -1) {
			targets++
			if target := m[1] + m[2]; !regexp.MustCompile(`(?m)^` + target + `( [^:]*)?:`).Match(makefile) {
				t.Errorf("%s says `make %s`, which the Makefile does not have", page, target)
			}
		}
	}
	if tests < 3 || targets < 20 {
		t.Errorf("only %d commands for tests and %d for make", tests, targets)
	}
}

func hasTest(t *testing.T, directory, expression string) bool {
	t.Helper()
	wanted, err := regexp.Compile(expression)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(reference.Path(t, filepath.FromSlash(directory), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			if wanted.Match(m[1]) {
				return true
			}
		}
	}
	return false
}
