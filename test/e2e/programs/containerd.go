package programs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// KindContainerd is the version of the container runtime that nodes like those
// of kind have.
const KindContainerd = "2.3"

// Containerd are the programs of a container runtime: a version below
// test/e2e/containerd, the directory source being test/e2e.
func Containerd(source, version string) ([]Program, error) {
	all, err := versions(filepath.Join(source, "containerd"))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(all, version) {
		return nil, fmt.Errorf("-containerd %s: possible are %s, or nothing for Debian's", version, strings.Join(all, ", "))
	}
	path := "github.com/containerd/containerd/"
	if !strings.HasPrefix(version, "1.") {
		path += "v2/"
	}
	var programs []Program
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		programs = append(programs, Program{Name: name, Module: filepath.Join("containerd", version), Package: path + "cmd/" + name})
	}
	return programs, nil
}

// versions are the names of the directories with a module, the oldest first.
func versions(directory string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(directory, "*", "go.mod"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("looking for versions in %s: %w", directory, os.ErrNotExist)
	}
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(numbers(a), numbers(b)) })
	return names, nil
}

// numbers of a version, so that 1.9 comes before 1.10.
func numbers(version string) (all []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part)
		all = append(all, n)
	}
	return all
}
