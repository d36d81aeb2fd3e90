package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// unpacked are the files of an archive, in its order.
func unpacked(t *testing.T, name string, content []byte) (files []file) {
	t.Helper()
	if strings.HasSuffix(name, ".zip") {
		archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, f := range archive.File {
			opened, err := f.Open()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			files = append(files, file{f.Name, int64(f.Mode()), read(t, opened)})
		}
		return files
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files = append(files, file{h.Name, int64(h.FileInfo().Mode()), read(t, archive)})
	}
}

func read(t *testing.T, from io.Reader) []byte {
	t.Helper()
	content, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestArchivesTellNothing(t *testing.T) {
	at := time.Unix(1_000_000_000, 0)
	for name, archive := range map[string]func(time.Time, []file) ([]byte, error){"a.tar.gz": tarball, "a.zip": zipfile} {
		files := []file{{"d/b", 0o755, []byte("program")}, {"d/a", 0o644, []byte("text")}}
		first, err := archive(at, files)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(files)
		second, err := archive(at.In(time.FixedZone("elsewhere", 3600)), files)
		if err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s: the order of files, or where it was made, shows in the archive, %v", name, err)
		}
		equal := func(a, b file) bool { return a.name == b.name && a.mode == b.mode && bytes.Equal(a.content, b.content) }
		if got := unpacked(t, name, first); !slices.EqualFunc(got, files, equal) {
			t.Errorf("%s has %v, want %v", name, got, files)
		}
	}
}

func TestTimesAndOwners(t *testing.T) {
	at := time.Unix(1_000_000_000, 0)
	files := []file{{"d/a", 0o644, []byte("text")}}
	zipped, err := zipfile(at, files)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(zipped), int64(len(zipped)))
	if err != nil {
		t.Fatal(err)
	}
	if got := archive.File[0].Modified; !got.Equal(at) {
		t.Errorf("the file in the zip is of %v, want %v", got, at)
	}
	tarred, err := tarball(at, files)
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(tarred))
	if err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(unzipped).Next()
	if err != nil {
		t.Fatal(err)
	}
	if !h.ModTime.Equal(at) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
		t.Errorf("%s is of %v, and belongs to %d %q", h.Name, h.ModTime, h.Uid, h.Uname)
	}
}
