package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/bgp"
)

// bgpStateFile, in the state directory, has what the next run begins with: who the node is,
// and what it announces, comes from the API, which may be away by then. The cleanup has from
// it whom to tell that it is over.
const bgpStateFile = "bgp.json"

// bgpMemory is what is in the file. Passwords are not, but where they are.
type bgpMemory struct {
	// Boot is the kernel's id of its start: what was told before another one is over.
	Boot string `json:"boot"`
	// Config is the last good configuration, as it was written.
	Config  string      `json:"config"`
	Desired bgp.Desired `json:"desired"`
}

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// readMemory returns nil where there is none.
func (f *routing) readMemory() (*bgpMemory, error) {
	path := filepath.Join(f.config.StateDir, bgpStateFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	m := &bgpMemory{}
	if err == nil {
		err = json.Unmarshal(raw, m)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// recall returns what the run before has left, nil if there is nothing of use.
func (f *routing) recall() *bgpMemory {
	m, err := f.readMemory()
	if err != nil {
		f.Log.Warn("what BGP peers were told before cannot be read; they are told when nodes and Services are known", "error", err)
		return nil
	}
	if m == nil || m.Boot != bootID() {
		return nil
	}
	return m
}

// resume has peers told what the run before told, until it is known what there is to tell:
// at the first End-of-RIB they forget what is not among it.
func (f *routing) resume(d bgp.Desired) {
	f.resumed, f.wanted, f.told = true, &d, time.Now()
	f.follows(d)
	f.program.Want(d)
}

// save writes what the next run begins with.
func (f *routing) save(d bgp.Desired) {
	path := filepath.Join(f.config.StateDir, bgpStateFile)
	fresh := path + ".fresh"
	raw, err := json.Marshal(bgpMemory{Boot: bootID(), Config: f.file.Text(), Desired: d})
	if err == nil {
		err = os.WriteFile(fresh, raw, 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if f.unsaved = err; err != nil {
		f.unsaved = fmt.Errorf("noting what BGP peers are told: %w", err)
	}
}

// withdrawTime is how long neighbours may take to be reached by a cleanup.
const withdrawTime = 15 * time.Second

// withdraw tells neighbours of a run before that there is nothing here any more.
func (f *routing) withdraw(ctx context.Context) ([]string, error) {
	m, err := f.readMemory()
	if err != nil {
		return nil, fmt.Errorf("reading what BGP peers were told: %w", err)
	}
	if m == nil || len(m.Desired.Neighbours) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, withdrawTime)
	defer cancel()
	told, err := bgp.Withdraw(ctx, filepath.Join(f.config.PluginsDir, bgpProgram), m.Desired, f.Log)
	var removed []string
	for _, name := range told {
		removed = append(removed, "announcements to "+name)
	}
	if err != nil {
		err = fmt.Errorf("withdrawing what BGP peers were told: %w", err)
	}
	return removed, err
}
