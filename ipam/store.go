package ipam

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultLockTimeout is how long a Store waits for its lock unless told otherwise.
const DefaultLockTimeout = 10 * time.Second

// Options says where the state of a network is and how to treat it.
type Options struct {
	// Directory holds a directory of records for each network, as
	// host-local's dataDir does. Best on a tmpfs such as /run.
	Directory string
	// Network is the name of the network, 1 to 255 bytes, no path.
	Network string
	// BootID identifies the time since the machine started. Records of
	// another boot are discarded, since none of their pods exists any more.
	// Empty means that of the kernel.
	BootID string
	// LockTimeout is how long to wait for the lock; 0 means
	// DefaultLockTimeout.
	LockTimeout time.Duration
	// Log is told of what was found damaged and how it was healed. Nil
	// discards it.
	Log *slog.Logger
	// Step, if not nil, is called before every change on the disk with a
	// name for it, such as "record 10.1.2.3". An error makes the operation
	// stop there. Tests inject faults and crashes with it.
	Step func(operation string) error
}

// Store is the reservations of one network. Any number of them, in any number
// of processes, can work on the same directory at the same time. Its methods
// may be called concurrently.
type Store struct {
	path    string // of the record directory
	timeout time.Duration
	boot    bootMark
	bootID  string
	log     *slog.Logger
	step    func(string) error

	noTmpfile bool // for tests, see disk
}

// Open returns the store of a network. It makes the directory if there is
// none (mode 0700), and neither waits for the lock nor looks at a record. It
// fails if the options are wrong or the directory cannot be made.
func Open(o Options) (*Store, error) {
	if o.Directory == "" {
		return nil, errors.New("opening address store: the directory is empty")
	}
	switch {
	case o.Network == "":
		return nil, errors.New("opening address store: the network name is empty")
	case len(o.Network) > 255:
		return nil, fmt.Errorf("opening address store: the network name %.32q… is %d bytes long, more than 255", o.Network, len(o.Network))
	case o.Network == "." || o.Network == ".." || strings.Contains(o.Network, "/") || !plain(o.Network):
		return nil, fmt.Errorf("opening address store: the network name %q is not usable as the name of a directory", o.Network)
	case o.LockTimeout < 0:
		return nil, fmt.Errorf("opening address store: the lock timeout %s is negative", o.LockTimeout)
	}
	s := &Store{
		path:    filepath.Join(o.Directory, o.Network),
		timeout: o.LockTimeout,
		bootID:  o.BootID,
		log:     o.Log,
		step:    o.Step,
	}
	if s.timeout == 0 {
		s.timeout = DefaultLockTimeout
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.bootID == "" {
		s.bootID = kernelBootID()
		if s.bootID == "" {
			s.log.Warn("the kernel's boot id cannot be read; state of an earlier boot is not recognised")
		}
	}
	s.boot = markOf(s.bootID)
	if err := s.makeDirectory(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close releases what Open took. The Store cannot be used afterwards.
func (s *Store) Close() error { return nil }

func (s *Store) makeDirectory() error {
	if st, err := os.Stat(s.path); err == nil && st.IsDir() {
		return nil
	}
	if s.step != nil {
		if err := s.step("mkdir " + s.path); err != nil {
			return fmt.Errorf("mkdir %s: %w", s.path, err)
		}
	}
	if err := os.MkdirAll(s.path, 0o700); err != nil {
		return fail("making directory", s.path, errno(err))
	}
	return nil
}
