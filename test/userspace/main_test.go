// Package userspace_test says which versions of the programs around flatnet get
// along with it: each nft that Debian has reads the tables that flatnet makes, for
// which it needs none; each iptables, in both variants, gets the accepts in its
// FORWARD chain. The programs are Debian's own, unpacked and not installed.
package userspace_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/kernels/debian"
)

// suites of Debian, by what clusters run: the oldest that gets updates to the newest.
var suites = []string{"bullseye", "bookworm", "trixie", "sid"}

var (
	roots   = map[string]string{} // by suite, where its programs are unpacked
	missing error                 // why there are none
)

func TestMain(m *testing.M) {
	// Downloading needs the network, so it comes before the namespaces.
	missing = download()
	cluster.Main(m)
}

func download() error {
	if !onDebian() {
		return errors.New("other versions of nft and iptables come from Debian's packages, by the mirror of a Debian: this machine is none")
	}
	cache := filepath.Join(debian.Cache(), "userspace")
	for _, suite := range suites {
		root, err := debian.GetPrograms(context.Background(), cache, suite, runtime.GOARCH, os.Stderr, "nftables", "iptables")
		if err != nil {
			return err
		}
		roots[suite] = root
	}
	return nil
}

// onDebian reports whether the machine's apt has a mirror of Debian: its descendants
// have packages of their own.
func onDebian() bool {
	release, err := os.ReadFile("/etc/os-release")
	return err == nil && strings.Contains("\n"+string(release), "\nID=debian\n")
}

// programs makes a directory in which a suite's programs run, with that suite's
// libraries. Without packages a test fails where they could be had, and is
// skipped elsewhere.
func programs(t *testing.T, suite string) string {
	t.Helper()
	if missing != nil {
		if onDebian() && os.Getuid() == 0 {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	root, directory := roots[suite], t.TempDir()
	// Not what lib64 has, which may be a link to the machine's own.
	linker := one(t, root, "lib/*-linux-gnu/ld-[0-9]*.so", "lib/*-linux-gnu/ld-linux*.so*", "usr/lib/*-linux-gnu/ld-linux*.so*")
	var libraries []string
	for _, pattern := range []string{"lib/*-linux-gnu", "usr/lib/*-linux-gnu"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		libraries = append(libraries, found...)
	}
	modules := one(t, root, "usr/lib/*-linux-gnu/xtables")
	write := func(name, program string, arguments ...string) {
		text := fmt.Sprintf("#!/bin/sh\nXTABLES_LIBDIR=%s exec %s --library-path %s %s %s \"$@\"\n",
			modules, linker, strings.Join(libraries, ":"), one(t, root, "usr/sbin/"+program, "sbin/"+program), strings.Join(arguments, " "))
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("nft", "nft")
	for _, variant := range []string{"nft", "legacy"} {
		for _, family := range []string{"iptables", "ip6tables"} {
			write(family+"-"+variant, "xtables-"+variant+"-multi", family)
		}
	}
	return directory
}

// one returns the first file of a root that one of the patterns matches.
func one(t *testing.T, root string, patterns ...string) string {
	t.Helper()
	for _, pattern := range patterns {
		if found, _ := filepath.Glob(filepath.Join(root, pattern)); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatalf("%s has no %s", root, strings.Join(patterns, " or "))
	return ""
}

// version is what a program calls itself: "v1.0.6".
func version(t *testing.T, program string) string {
	t.Helper()
	out, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	words := strings.Fields(string(out))
	if len(words) < 2 {
		t.Fatalf("%s says %s", program, out)
	}
	return words[1]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
