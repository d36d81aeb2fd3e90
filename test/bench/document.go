package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/flatnet-cni/flatnet/test/bench/page"
)

const introduction = `# Benchmarks

` + "`make bench`" + ` writes this page (` + "`go run ./test/bench -o docs/benchmarks.md`" + `). It keeps what stands between the marks
"explanation", which is written by hand, and the last sections, which ` + "`make bench-cluster`" + ` writes.

Everything happens in network namespaces that the benchmark makes. libcni executes all plugins in the same way: a node
for each contender, a fresh pod for each attachment. They take turns in every round, in random order and with a random
pause before each step. Figures are medians unless they say otherwise.

- **ptp**, **bridge**: Debian's containernetworking-plugins, with host-local.
- **floor**: a bare Go program that makes the kernel objects of flatnet's IPv4 attachment from constants: no
  configuration, no allocator, no state, no checks ([source](../test/bench/floor/main.go)).
- **noop**: a Go program that does nothing, which is what executing a plugin costs.
- **kube-proxy**: that of the Kubernetes in [test/e2e](../test/e2e/README.md), in mode nftables.

To measure parts alone, use ` + "`go run ./test/bench -run REGEXP`" + `: size, latency, burst, allocator, growth, path-node,
path-direct, path-vxlan, path-flows, scale, repair, services, policies, bandwidth, ports, kubectl.
`

// writeDocument writes the report, with the explanations of the one that was there,
// and unless it is complete with its other sections.
func writeDocument(path string, before, after page.Machine, sections []section, complete bool) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the last report: %w", err)
	}
	text := ""
	if complete {
		text = document(string(old), before, after, sections)
	} else if text, err = amended(string(old), before, after, sections); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing report: %w", err)
	}
	return nil
}

// document is the whole report in Markdown; it takes the explanations from old,
// and what was measured on a cluster.
func document(old string, before, after page.Machine, sections []section) string {
	var text strings.Builder
	text.WriteString(introduction + "\n" + page.Explanation(old, "introduction"))
	text.WriteString("\n## The machine\n\n" + before.String() + after.Since(before))
	text.WriteString("- peers: containernetworking-plugins " + peerVersion() + "\n")
	for _, s := range sections {
		fmt.Fprintf(&text, "\n## %s\n\n%s\n%s", s.title, s, page.Explanation(old, s.name))
	}
	if cluster := page.Cluster(old); cluster != "" {
		text.WriteString("\n" + cluster)
	}
	return text.String()
}

// amended is a report in which some sections are new. They say by themselves in
// what state the machine was.
func amended(old string, before, after page.Machine, sections []section) (string, error) {
	for _, s := range sections {
		heading, mark := "\n## "+s.title+"\n\n", "<!-- explanation: "+s.name+" -->\n"
		head, rest, found := strings.Cut(old, heading)
		_, tail, explained := strings.Cut(rest, mark)
		if !found || !explained {
			return "", fmt.Errorf("the report has no section %q with an explanation: make all of it, without -run", s.title)
		}
		old = fmt.Sprintf("%s%s%s\nMeasured on its own. %s\n%s%s", head, heading, s, before.State(after), mark, tail)
	}
	return old, nil
}

// peerVersion is that of Debian's plugins.
func peerVersion() string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins").Output()
	if err != nil {
		return "of unknown version"
	}
	return string(out)
}
