package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/flatnet-cni/flatnet/test/bench/page"
)

// families are those that a cluster can have, and the titles of their sections,
// in the page's order.
var families = []struct{ name, title string }{
	{"ipv4", "Time to pod: a cluster of IPv4"},
	{"dual", "Time to pod: a dual-stack cluster"},
	{"ipv6", "Time to pod: a cluster of IPv6"},
}

// writeSection puts what was measured on a cluster of a family into a page, and
// leaves the rest of it.
func writeSection(path, family, measured string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading page of benchmarks: %w", err)
	}
	text, err := amended(string(old), family, measured)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing page of benchmarks: %w", err)
	}
	return nil
}

// amended is a page in which the section of one family is new. Families that
// were never measured have none.
func amended(old, family, measured string) (string, error) {
	before, _, _ := strings.Cut(old, page.ClusterMark)
	cluster := page.Cluster(old)
	var text strings.Builder
	text.WriteString(strings.TrimRight(before, "\n") + "\n\n" + page.ClusterMark)
	text.WriteString("\n" + page.Explanation(cluster, "time-to-pod"))
	known := false
	for _, f := range families {
		body := body(cluster, f.name, f.title)
		if f.name == family {
			body, known = measured, true
		}
		if body != "" {
			fmt.Fprintf(&text, "\n## %s\n\n%s\n%s", f.title, strings.Trim(body, "\n")+"\n", page.Explanation(cluster, mark(f.name)))
		}
	}
	if !known {
		return "", errors.New("there is no family " + family)
	}
	return text.String(), nil
}

// mark names the explanation of a family's section.
func mark(family string) string { return "time-to-pod-" + family }

// body is a section without its title and its explanation, "" if there is none.
func body(cluster, family, title string) string {
	_, rest, _ := strings.Cut(cluster, "\n## "+title+"\n")
	body, _, found := strings.Cut(rest, "<!-- explanation: "+mark(family)+" -->")
	if !found {
		return ""
	}
	return body
}
