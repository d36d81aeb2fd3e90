package deploy

import (
	"os"
	"os/exec"
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
		"for binary in flatnetd flatnet flatnet-ipam flatnet-bgp;", "CGO_ENABLED=0", "-X main.version=$VERSION",
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

// What the Dockerfile copies is enough to build from.
func TestImageHasTheWholeSource(t *testing.T) {
	const module = "github.com/flatnet-cni/flatnet/"
	var copied []string
	for _, line := range instructions(t) {
		if fields := strings.Fields(line); fields[0] == "COPY" && !strings.HasPrefix(fields[1], "--") {
			copied = append(copied, fields[1:len(fields)-1]...)
		}
	}
	cmd := exec.Command("go", "list", "-deps", "./cmd/flatnetd", "./cmd/flatnet", "./cmd/flatnet-ipam")
	cmd.Dir = filepath.Join(path(t), "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	list, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing what is built: %v", err)
	}
	count := 0
	for _, pkg := range strings.Fields(string(list)) {
		own, is := strings.CutPrefix(pkg, module)
		if !is {
			continue
		}
		count++
		if top, _, _ := strings.Cut(own, "/"); !slices.Contains(copied, top) {
			t.Errorf("package %s is built, and %s is not copied", pkg, top)
		}
	}
	if count < 3 {
		t.Errorf("%d packages of flatnet are built", count)
	}
}
