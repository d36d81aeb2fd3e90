package main

import (
	"fmt"
	"regexp"
	"strings"
)

// section begins a version's part of the changelog.
var section = regexp.MustCompile(`(?m)^## \[([^\]]+)\].*$`)

// notesOf returns what the changelog says of a version, v1.2.3 or 1.2.3. The links in
// it lead to files of that version, since a release's page is at no place of the repository.
func notesOf(changelog, version string) (string, error) {
	wanted := strings.TrimPrefix(version, "v")
	starts := section.FindAllStringSubmatchIndex(changelog, -1)
	for i, at := range starts {
		if changelog[at[2]:at[3]] != wanted {
			continue
		}
		end := len(changelog)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		text := strings.TrimSpace(changelog[at[1]:end])
		if text == "" {
			return "", fmt.Errorf("CHANGELOG.md says nothing of %s", wanted)
		}
		local := regexp.MustCompile(`\]\(([^)#:]+)((?:#[^)]*)?)\)`)
		return local.ReplaceAllString(text, "]("+repository+"/blob/"+version+"/$1$2)") + "\n", nil
	}
	return "", fmt.Errorf("CHANGELOG.md has no section [%s]: name Unreleased so, with the date, before the tag is made", wanted)
}
