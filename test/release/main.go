// Command release builds what a release consists of, besides images: the programs of nodes,
// for Linux on amd64 and arm64; kubectl-flatnet, for the machines of users, and what krew
// has to know of it; the manifests; and a list of sums of all. It builds all of it twice,
// the second time from a copy of the source in another directory with nothing cached, and
// fails where one bit differs.
//
//	make release VERSION=v1.2.3            # into bin/release
//	go run ./test/release -notes v1.2.3    # that version's section of CHANGELOG.md
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/flatnet-cni/flatnet/test/reference"
)

func main() {
	version := flag.String("version", "", "of the release: `v1.2.3`, and what git describes for a try")
	out := flag.String("o", "bin/release", "`directory` that is made anew")
	notes := flag.String("notes", "", "print what is new in this `version`, and build nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := reference.Repository()
	if err == nil && *notes != "" {
		err = printNotes(filepath.Join(root, "CHANGELOG.md"), *notes)
	} else if err == nil {
		err = release(ctx, root, *version, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func printNotes(changelog, version string) error {
	text, err := os.ReadFile(changelog)
	if err != nil {
		return err
	}
	section, err := notesOf(string(text), version)
	if err == nil {
		fmt.Print(section)
	}
	return err
}

// release builds twice, compares, and leaves the first in out.
func release(ctx context.Context, root, version, out string) error {
	if err := checkVersion(version); err != nil {
		return err
	}
	source, err := commitOf(ctx, root)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "flatnet-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	second := source
	second.directory = filepath.Join(scratch, "another directory")
	if err := copySource(ctx, root, second.directory); err != nil {
		return err
	}
	again := filepath.Join(scratch, "again")
	for _, b := range []build{
		{source: source, version: version, out: out},
		{source: second, version: version, out: again, cache: filepath.Join(scratch, "cache")},
	} {
		fmt.Println("building in", b.source.directory)
		if err := b.all(ctx); err != nil {
			return err
		}
	}
	differ, err := compare(out, again)
	if err != nil {
		return err
	}
	if len(differ) > 0 {
		return fmt.Errorf("two builds of one commit differ in %s: see what their directory, or the time, has left in them (diffoscope)", strings.Join(differ, ", "))
	}
	sums, err := os.ReadFile(filepath.Join(out, sumsName))
	if err != nil {
		return err
	}
	fmt.Printf("built twice with %s, the same bit by bit, in %s:\n%s", source.toolchain, out, sums)
	return nil
}
