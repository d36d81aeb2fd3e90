package initramfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestArchive(t *testing.T) {
	directory := t.TempDir()
	program := filepath.Join(directory, "program")
	if err := os.WriteFile(program, []byte("12345"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := New()
	if err := r.File("/bin/program", program); err != nil {
		t.Fatal(err)
	}
	r.Text("/etc/motd", "hello\n")
	r.Link("sbin/other", "/usr/bin/program")
	to := filepath.Join(directory, "root")
	if err := r.Write(to); err != nil {
		t.Fatal(err)
	}
	files := readArchive(t, to)
	for name, want := range map[string]string{
		"usr/bin/program": "100755 12345",
		"etc/motd":        "100644 hello\n",
		"usr/sbin/other":  "120777 /usr/bin/program",
		"bin":             "120777 usr/bin",
		"usr":             "40755 ",
		"tmp":             "41777 ",
		"TRAILER!!!":      "0 ",
	} {
		if files[name] != want {
			t.Errorf("%s is %q, want %q", name, files[name], want)
		}
	}
}

// readArchive returns what is in an archive: the mode in octal, and the content.
func readArchive(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	aligned := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; at < len(text); {
		if string(text[at:at+6]) != "070701" {
			t.Fatalf("no header at %d of %d", at, len(text))
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(text[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		size, length := field(6), field(11)
		content := aligned(at + 110 + length)
		files[strings.TrimRight(string(text[at+110:at+110+length]), "\x00")] = fmt.Sprintf("%o %s", field(1), text[content:content+size])
		at = aligned(content + size)
	}
	return files
}
