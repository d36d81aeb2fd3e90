// Package docs tests what people read: that links lead somewhere, that every page is
// in the table of contents, and that every package says what it is.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// goFiles returns the files of each directory with Go in it, parsed as far as their package
// clause.
func goFiles(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	top, all := reference.Path(t), map[string]map[string]*ast.File{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != top && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		directory := filepath.Dir(relative)
		if all[directory] == nil {
			all[directory] = map[string]*ast.File{}
		}
		all[directory][filepath.Base(path)] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d directories with Go", len(all))
	}
	return all
}

// `go doc` shows the comments above the package clauses of all of a package's files, one after
// the other, and lists the first sentence of the first: so there is one comment, and
// it begins with the package's name. What has nothing but tests says so in one of them.
func TestPackageComments(t *testing.T) {
	for directory, files := range goFiles(t) {
		onlyTests := true
		for name := range files {
			onlyTests = onlyTests && strings.HasSuffix(name, "_test.go")
		}
		var comments []string
		begin := ""
		for name, f := range files {
			if strings.HasSuffix(name, "_test.go") != onlyTests {
				continue
			}
			begin = "Package " + f.Name.Name + " "
			if f.Name.Name == "main" {
				begin = "Command " + filepath.Base(directory) + " "
			}
			if f.Doc != nil {
				comments = append(comments, name+": "+f.Doc.Text())
			}
		}
		switch {
		case len(comments) == 0:
			t.Errorf("%s has no comment above a package clause that begins with %q", directory, begin)
		case len(comments) > 1:
			t.Errorf("%s has %d comments above package clauses, of which `go doc` makes one: leave a line free below those that are not about the package\n%s",
				directory, len(comments), strings.Join(comments, "\n"))
		default:
			if _, text, _ := strings.Cut(comments[0], ": "); !strings.HasPrefix(text, begin) {
				t.Errorf("%s: the package's comment begins otherwise than with %q:\n%s", directory, begin, comments[0])
			}
		}
	}
}

// The table in the design has every package.
func TestDesignHasEveryPackage(t *testing.T) {
	text, err := os.ReadFile(reference.Path(t, "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	for directory := range goFiles(t) {
		if (directory == "ipam" || strings.HasPrefix(directory, "pkg"+string(filepath.Separator))) && strings.Count(directory, string(filepath.Separator)) < 2 &&
			!strings.Contains(string(text), "`"+filepath.ToSlash(directory)+"`") {
			t.Errorf("the table of packages in docs/design.md lacks `%s`", directory)
		}
	}
}
