package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instructions are the Dockerfile's lines with what continues them.
func instructions(t *testing.T) (all []string) {
	t.Helper()
	text := regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(string(read(t, "image", "Dockerfile")), "")
	for _, line := range strings.Split(strings.ReplaceAll(text, "\\\n", " "), "\n") {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// The same source gives the same image next year, as far as a tag can promise.
func TestBasesArePinned(t *testing.T) {
	version := regexp.MustCompile(`^[a-z]+:\d+\.\d+\.\d+(-\w+[.\d]*)?(@sha256:[0-9a-f]{64})?$`)
	arguments := map[string]string{}
	bases := 0
	for _, line := range instructions(t) {
		if argument, is := strings.CutPrefix(line, "ARG "); is {
			name, value, _ := strings.Cut(argument, "=")
			arguments["${"+name+"}"] = value
		}
		if from, is := strings.CutPrefix(line, "FROM "); is {
			fields := slices.DeleteFunc(strings.Fields(from), func(f string) bool { return strings.HasPrefix(f, "--") })
			base := fields[0]
			if value, known := arguments[base]; known {
				base = value
			}
			if !version.MatchString(base) {
				t.Errorf("base %s is not pinned to a version", base)
			}
			bases++
		}
	}
	if bases != 2 {
		t.Errorf("%d stages, want one to build in and one to run", bases)
	}
}

// All programs and what flatnetd executes are in the image, and the source that
// they are built from is in the context.
func TestImageHasWhatIsNeeded(t *testing.T) {
	text := strings.Join(instructions(t), "\n")
	for _, needed := range []string{
		"for binary in flatnetd flatnet flatnet-ipam;", "CGO_ENABLED=0", "-X main.version=$VERSION",
		"apk add --no-cache nftables iptables iptables-legacy", `ENTRYPOINT ["/usr/local/bin/flatnetd"]`, "COPY --from=build /out/ /usr/local/bin/",
	} {
		if !strings.Contains(text, needed) {
			t.Errorf("the Dockerfile lacks %s", needed)
		}
	}
	ignore, err := os.ReadFile(filepath.Join(path(t), "..", ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range instructions(t) {
		sources, is := strings.CutPrefix(line, "COPY ")
		if !is || strings.HasPrefix(sources, "--from") {
			continue
		}
		fields := strings.Fields(sources)
		for _, source := range fields[:len(fields)-1] {
			if !slices.Contains(strings.Split(string(ignore), "\n"), "!"+source) {
				t.Errorf(".dockerignore keeps %s out of the build", source)
			}
			if _, err := os.Stat(filepath.Join(path(t), "..", source)); err != nil {
				t.Errorf("the Dockerfile copies %s: %v", source, err)
			}
		}
	}
}
