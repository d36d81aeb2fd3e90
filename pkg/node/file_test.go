package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/console"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// running is a source that runs for the length of a test.
type running struct {
	t         *testing.T
	source    Source
	delivered chan []Node
	log       *console.Output
}

// run runs the source that create makes.
func run(t *testing.T, create func(*slog.Logger) Source) *running {
	t.Helper()
	log := new(console.Output)
	r := &running{t: t, delivered: make(chan []Node, 100), log: log}
	r.source = create(slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.source.Run(ctx, func(nodes []Node) { r.delivered <- nodes }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ends with %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	return r
}

// expect waits for the next delivery, which must be the nodes of the text.
func (r *running) expect(text string) {
	r.t.Helper()
	select {
	case nodes := <-r.delivered:
		if got, want := textOf(nodes, nil), lines(text); got != want {
			r.t.Fatalf("delivered\n%s\nwant\n%s", got, want)
		}
	case <-time.After(pace.Far()):
		r.t.Fatalf("nothing delivered, want\n%s\nCheck: %v", text, r.source.Check())
	}
}

// checks waits until Check returns an error with the text; nil if it is empty.
func (r *running) checks(text string) {
	r.t.Helper()
	if _, err := pace.Await(pace.Far(), func() error {
		err := r.source.Check()
		if err == nil && text == "" || err != nil && text != "" && strings.Contains(err.Error(), text) {
			return nil
		}
		return fmt.Errorf("Check returns %v, want %q", err, text)
	}); err != nil {
		r.t.Fatal(err)
	}
}

// silent checks that nothing has been delivered.
func (r *running) silent() {
	r.t.Helper()
	select {
	case nodes := <-r.delivered:
		r.t.Fatalf("delivered\n%s\nwant nothing", textOf(nodes, nil))
	default:
	}
}

// runFile runs a File source for nodes.yaml in a directory.
func runFile(t *testing.T, path string) *running {
	return run(t, func(log *slog.Logger) Source { return NewFile(path, log) })
}

// write writes text to the file at path in place.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// try fails the test at an error.
func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	one = "nodes: [{name: n1, addresses: [172.30.0.1]}]\n"
	two = "nodes: [{name: n1, addresses: [172.30.0.1]}, {name: n2}]\n"
)

func TestFileInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, one)
	r := runFile(t, path)
	r.expect("n1 172.30.0.1")
	r.checks("")
	write(t, path, two)
	r.expect("n1 172.30.0.1\nn2")
	write(t, path, one)
	r.expect("n1 172.30.0.1")
}

func TestFileRename(t *testing.T) {
	dir := t.TempDir()
	path, next := filepath.Join(dir, "nodes.yaml"), filepath.Join(dir, ".nodes.yaml.next")
	write(t, path, one)
	r := runFile(t, path)
	r.expect("n1 172.30.0.1")
	write(t, next, two)
	try(t, os.Rename(next, path))
	r.expect("n1 172.30.0.1\nn2")
}

// A ConfigMap's directory, and how the kubelet changes it.
func TestFileConfigMap(t *testing.T) {
	dir := t.TempDir()
	version := func(name, text string) {
		t.Helper()
		try(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		write(t, filepath.Join(dir, name, "nodes.yaml"), text)
		try(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		try(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	version("..2026_1", one)
	path := filepath.Join(dir, "nodes.yaml")
	try(t, os.Symlink("..data/nodes.yaml", path))
	r := runFile(t, path)
	r.expect("n1 172.30.0.1")
	version("..2026_2", two)
	try(t, os.RemoveAll(filepath.Join(dir, "..2026_1")))
	r.expect("n1 172.30.0.1\nn2")
	r.checks("")
}

func TestFileLinks(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "nodes.yaml")
	write(t, filepath.Join(elsewhere, "one"), one)
	write(t, filepath.Join(elsewhere, "two"), two)
	r := runFile(t, path)
	r.checks("waiting for it")
	try(t, os.Symlink(filepath.Join(elsewhere, "one"), path))
	r.expect("n1 172.30.0.1")
	try(t, os.Remove(path))
	try(t, os.Link(filepath.Join(elsewhere, "two"), path))
	r.expect("n1 172.30.0.1\nn2")
}

func TestFileRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, one)
	r := runFile(t, path)
	r.expect("n1 172.30.0.1")
	try(t, os.Remove(path))
	r.checks("reading nodes file " + path + ": no such file or directory; the 1 nodes read before stay")
	if !errors.Is(r.source.Check(), fs.ErrNotExist) {
		t.Error("the reason cannot be told by errors.Is")
	}
	write(t, path, two)
	r.expect("n1 172.30.0.1\nn2")
	r.checks("")
}

// The file, and the directory it is to be in, are waited for.
func TestFileMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc", "flatnet")
	path := filepath.Join(dir, "nodes.yaml")
	r := runFile(t, path)
	r.checks("no such file or directory; waiting for it")
	try(t, os.MkdirAll(dir, 0o755))
	write(t, path, one)
	r.expect("n1 172.30.0.1")
	r.checks("")
	// A directory of the same name is another one.
	try(t, os.RemoveAll(dir))
	r.checks("no such file or directory; the 1 nodes read before stay")
	try(t, os.MkdirAll(dir, 0o755))
	write(t, path, two)
	r.expect("n1 172.30.0.1\nn2")
}

// What is malformed leaves the last good list, and is said once.
func TestFileMalformed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, two)
	r := runFile(t, path)
	r.expect("n1 172.30.0.1\nn2")
	write(t, path, "nodes:\n- name: n1\n  podCIDRs: [10.244.1.0/33]\n")
	want := "reading nodes file " + path + `: line 3: node n1: podCIDRs[0] "10.244.1.0/33" is not a prefix such as 10.244.1.0/24; the 2 nodes read before stay`
	r.checks(want)
	// Written again, it is the same error.
	write(t, path, "nodes:\n- name: n1\n  podCIDRs: [10.244.1.0/33] # again\n")
	write(t, path, "nodes: []")
	r.checks("a list of zero nodes is taken for a mistake")
	if n := strings.Count(r.log.String(), "10.244.1.0/33"); n != 1 {
		t.Errorf("the error is logged %d times", n)
	}
	// The list that was good before is no news.
	write(t, path, two)
	r.checks("")
	r.silent()
	write(t, path, one)
	r.expect("n1 172.30.0.1")
}

// Another text for the same nodes is no change.
func TestFileSameNodes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, one)
	r := runFile(t, path)
	r.expect("n1 172.30.0.1")
	write(t, path, "# the only one\n"+one)
	write(t, path, two)
	r.expect("n1 172.30.0.1\nn2")
}

// A list that is being written is not read before it is complete, even where
// what there is of it is a valid one.
func TestFileBeingWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, two)
	r := runFile(t, path)
	r.expect("n1 172.30.0.1\nn2")
	for _, open := range []func() error{
		func() error { return nil },             // truncated
		func() error { return os.Remove(path) }, // made anew
	} {
		try(t, open())
		file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		try(t, err)
		for _, part := range []string{"nodes:\n- name: n1\n", "- name: n2\n", "- name: n3\n"} {
			_, err := file.WriteString(part)
			try(t, err)
			time.Sleep(3 * settle) // time enough to be caught; later it would be missed
			r.silent()
		}
		try(t, file.Close())
		r.expect("n1\nn2\nn3")
		write(t, path, two)
		r.expect("n1 172.30.0.1\nn2")
	}
}

// Of many changes in a row the last one counts, and is not missed.
func TestFileManyChanges(t *testing.T) {
	dir := t.TempDir()
	path, next := filepath.Join(dir, "nodes.yaml"), filepath.Join(dir, "next")
	write(t, path, one)
	r := runFile(t, path)
	for _, n := range cluster(300) {
		write(t, next, string(fileOf([]Node{n}, true)))
		try(t, os.Rename(next, path))
	}
	deadline := time.After(pace.Far())
	for {
		select {
		case nodes := <-r.delivered:
			if nodes[0].Name == "node-299" {
				return
			}
		case <-deadline:
			t.Fatalf("the last change is not delivered; Check: %v", r.source.Check())
		}
	}
}

// A change is told by the kernel: it does not wait until the file is read anyway.
func TestFileDoesNotWaitForThePoll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, one)
	r := run(t, func(log *slog.Logger) Source {
		f := NewFile(path, log)
		f.poll = 100 * pace.Far()
		return f
	})
	r.expect("n1 172.30.0.1")
	for range 5 {
		write(t, path, two)
		r.expect("n1 172.30.0.1\nn2")
		write(t, path, one)
		r.expect("n1 172.30.0.1")
	}
}

// BenchmarkFileChange is the time from a change to its delivery.
func BenchmarkFileChange(b *testing.B) {
	path := filepath.Join(b.TempDir(), "nodes.yaml")
	change := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	change(one)
	delivered := make(chan []Node)
	done := make(chan error)
	ctx, cancel := context.WithCancel(b.Context())
	go func() {
		done <- NewFile(path, slog.New(slog.DiscardHandler)).Run(ctx, func(nodes []Node) { delivered <- nodes })
	}()
	<-delivered
	var took []time.Duration
	for i := range b.N {
		start := time.Now()
		change([]string{two, one}[i%2])
		<-delivered
		took = append(took, time.Since(start))
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
}

func TestFileOfNoUse(t *testing.T) {
	for _, test := range []struct {
		name, want string
		create     func(path string) error
	}{
		{"a directory", "it is not a regular file", func(path string) error { return os.Mkdir(path, 0o755) }},
		{"a pipe", "it is not a regular file", func(path string) error { return syscall.Mkfifo(path, 0o644) }},
		{"a huge file", "it is larger than 16 MiB, which is taken for a mistake", func(path string) error {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(path, maxFileSize+1)
		}},
		{"a loop of links", "too many levels of symbolic links", func(path string) error { return os.Symlink(path, path) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "nodes.yaml")
			try(t, test.create(path))
			r := runFile(t, path)
			r.checks("reading nodes file " + path + ": " + test.want)
			try(t, os.Remove(path))
			write(t, path, one)
			r.expect("n1 172.30.0.1")
		})
	}
}
