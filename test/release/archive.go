package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/flate"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// file is one in an archive.
type file struct {
	name    string
	mode    int64
	content []byte
}

// tarball is a tar.gz in which nothing tells who made it, when, and in what order.
func tarball(modified time.Time, files []file) ([]byte, error) {
	var out bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(zipped)
	for _, f := range sorted(files) {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: modified, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	if err := zipped.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// zipfile is the same as a zip, for who has no tar.
func zipfile(modified time.Time, files []file) ([]byte, error) {
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	archive.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	for _, f := range sorted(files) {
		// In UTC, since a zip has the local time, too.
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: modified.UTC()}
		header.SetMode(fs.FileMode(f.mode))
		content, err := archive.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := content.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func sorted(files []file) []file {
	return slices.SortedFunc(slices.Values(files), func(a, b file) int { return cmp.Compare(a.name, b.name) })
}

// compare returns the names of files that are not the same in both directories.
func compare(a, b string) (differ []string, err error) {
	names := map[string]bool{}
	for _, directory := range []string{a, b} {
		entries, err := os.ReadDir(directory)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			names[e.Name()] = true
		}
	}
	for name := range names {
		first, err := os.ReadFile(filepath.Join(a, name))
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		second, err := os.ReadFile(filepath.Join(b, name))
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		if first == nil || second == nil || !bytes.Equal(first, second) {
			differ = append(differ, name)
		}
	}
	slices.Sort(differ)
	return differ, nil
}
