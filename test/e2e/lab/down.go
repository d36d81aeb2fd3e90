package lab

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/state"
)

// Down removes the cluster in directory: its processes and with them their
// namespaces, its control groups, what it changed on the real machine, and the
// directory. It only ends what [Up] started, and does not mind what is gone
// already. Without a cluster it does nothing.
func Down(directory string, out io.Writer) error {
	l := &Lab{Directory: directory, Out: out, begin: time.Now()}
	s, err := state.Load(directory)
	if errors.Is(err, fs.ErrNotExist) {
		// Up may have died before it did anything but this.
		os.Remove(filepath.Join(directory, state.File+".new"))
		os.Remove(directory)
		l.say("there is no cluster in %s", directory)
		return nil
	}
	if err != nil {
		return err
	}
	l.state = s
	// The underlay was started first, and ends last.
	for i := len(s.Processes) - 1; i >= 0; i-- {
		name := s.Processes[i].Name
		if err := l.kill(name); err != nil {
			return err
		}
		l.say("%s has ended", name)
	}
	var errs []error
	for _, name := range s.Cgroups {
		errs = append(errs, removeCgroup(name))
	}
	errs = append(errs, s.RestoreSysctls())
	if err := errors.Join(errs...); err != nil {
		return err // with the state on the disk, for another try
	}
	if err := remove(directory); err != nil {
		return err
	}
	l.say("nothing is left")
	return nil
}

// remove removes the directory, the state in it last.
func remove(directory string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("looking for mounts: %w", err)
	}
	// None is ever made outside of machines. If one is here all the same, what is
	// behind it is not the cluster's.
	if strings.Contains(string(mounts), " "+directory+"/") {
		return fmt.Errorf("something is mounted below %s: unmount it, and try again", directory)
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return fmt.Errorf("removing %s: %w", directory, err)
	}
	for _, e := range entries {
		if e.Name() == state.File {
			continue
		}
		if err := os.RemoveAll(filepath.Join(directory, e.Name())); err != nil {
			return fmt.Errorf("removing %s: %w", directory, err)
		}
	}
	return os.RemoveAll(directory)
}
