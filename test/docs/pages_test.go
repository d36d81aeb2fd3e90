package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// pages returns all pages in Markdown with their text, by their path in the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	top, all := reference.Path(t), map[string]string{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != top && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(top, path)
		all[filepath.ToSlash(relative)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 15 {
		t.Fatalf("only %d pages", len(all))
	}
	return all
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	code    = regexp.MustCompile("(?m)^    .*$|`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
)

// anchors are what GitHub makes of a page's headings.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(m[1]))
		all[anchor] = true
	}
	return all
}

// Every link within the repository leads to a file, and to a heading of it.
func TestLinks(t *testing.T) {
	all := pages(t)
	count := 0
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(fence.ReplaceAllString(text, ""), ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			count++
			path := page
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(page), target))
				if _, err := os.Stat(reference.Path(t, path)); err != nil {
					t.Errorf("%s: the link %s leads nowhere: %v", page, m[1], err)
					continue
				}
			}
			if anchor != "" && !anchors(all[path])[anchor] {
				t.Errorf("%s: the link %s leads to a heading that %s does not have", page, m[1], path)
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d links", count)
	}
}

// Every page of docs/ is in its table of contents.
func TestContents(t *testing.T) {
	all := pages(t)
	contents := all["docs/README.md"]
	for page := range all {
		name, is := strings.CutPrefix(page, "docs/")
		if is && name != "README.md" && !strings.Contains(contents, "("+name+")") {
			t.Errorf("docs/README.md does not lead to %s", name)
		}
	}
}
