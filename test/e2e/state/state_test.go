package state

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

func TestStateSurvivesItsProgram(t *testing.T) {
	directory := t.TempDir()
	if _, err := Load(directory); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("loading what is not there: %v", err)
	}
	s, err := New(directory, plan.Options{Workers: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(directory, plan.Options{}); err == nil {
		t.Error("a second cluster was made over the first")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if err := s.Started("sleeper", cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(directory)
	if err != nil {
		t.Fatal(err)
	}
	p, known := loaded.Process("sleeper")
	if !known || p.PID != cmd.Process.Pid || !loaded.Alive(p) || loaded.Options.Workers != 3 {
		t.Errorf("loaded %+v", loaded)
	}
	// A process that got the PID of one of ours.
	other := p
	other.Start++
	if loaded.Alive(other) {
		t.Error("a process with another start is taken for ours")
	}
	// Ended, but not waited for by its parent.
	cmd.Process.Kill()
	for loaded.Alive(p) {
	}
	cmd.Wait()
	loaded.Boot = "another"
	if loaded.Alive(Process{PID: os.Getpid(), Start: mustStart(t, os.Getpid())}) {
		t.Error("a process of another boot is alive")
	}
}

func mustStart(t *testing.T, pid int) uint64 {
	t.Helper()
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	return start
}

func TestSysctlsAreRestored(t *testing.T) {
	for _, test := range []struct{ name, before, during, meanwhile, after string }{
		{"raised", "128\n", "1024", "", "128"},
		{"enough", "4096\n", "4096\n", "", "4096\n"},
		{"changed by somebody since", "128\n", "1024", "2048\n", "2048\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			directory := t.TempDir()
			s, err := New(directory, plan.Options{})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(directory, "sysctl")
			write(t, file, test.before)
			if err := s.SetSysctl(file, 1024); err != nil {
				t.Fatal(err)
			}
			if got := read(t, file); got != test.during {
				t.Errorf("during: %q", got)
			}
			if test.meanwhile != "" {
				write(t, file, test.meanwhile)
			}
			loaded, err := Load(directory)
			if err != nil {
				t.Fatal(err)
			}
			if err := loaded.RestoreSysctls(); err != nil {
				t.Fatal(err)
			}
			if got := read(t, file); got != test.after {
				t.Errorf("after: %q", got)
			}
		})
	}
}

func TestParseStart(t *testing.T) {
	start, err := parseStart("17 (a) b) S 1 17 17 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 23 42")
	if err != nil || start != 4711 {
		t.Errorf("%d, %v", start, err)
	}
	if _, err := parseStart("17 (x) Z 1 17 17 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 23 42"); err == nil {
		t.Error("a zombie has not ended")
	}
	if _, err := parseStart("17"); err == nil {
		t.Error("no error")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
