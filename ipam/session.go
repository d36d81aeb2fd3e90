package ipam

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// session is one operation on the store, from taking the lock to giving it
// back. In between, the index agrees with the records.
type session struct {
	*disk
	s     *Store
	lock  int
	state int // descriptor of the state file, or -1
	st    state

	marked  bool   // the state on disk says busy
	broken  bool   // the disk is not as st says: leave it busy
	rebuilt bool   // the index was rebuilt from the records in this session
	buffer  []byte // for encoding the state

	desperate bool              // see despair
	asked     int               // how often unavailable was called
	used      map[string]string // what it then read: the directory that has an address
}

// do runs f with the lock held and the index in order. What f changed in x.st
// is stored afterwards if f changed anything on the disk, whether it
// succeeded or not, unless it declared the session broken.
func (s *Store) do(ctx context.Context, f func(x *session) error) error {
	err := s.try(ctx, false, f)
	if errors.Is(err, errGarbage) {
		s.log.Warn("the index of reservations is damaged and is made anew", "directory", s.path, "error", err)
		err = s.try(ctx, true, f)
	}
	return err
}

func (s *Store) try(ctx context.Context, wipe bool, f func(x *session) error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	x, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer x.close()
	if wipe {
		if err := x.wipe(); err != nil {
			return err
		}
	}
	if err := x.load(); err != nil {
		return err
	}
	err = f(x)
	if x.marked && !x.broken {
		if failure := x.settle(); failure != nil {
			return errors.Join(err, failure)
		}
	}
	return err
}

// begin opens the directory and takes the lock.
func (s *Store) begin(ctx context.Context) (*session, error) {
	for try := 0; ; try++ {
		d := &disk{step: s.step, noTmpfile: s.noTmpfile}
		var err error
		d.dir, err = restarted(func() (int, error) {
			return unix.Open(s.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
		if err == nil {
			var lock int
			if lock, err = s.lock(ctx, d); err == nil {
				return &session{disk: d, s: s, lock: lock, state: -1}, nil
			}
			unix.Close(d.dir)
		} else if err == unix.ENOENT {
			if err = s.makeDirectory(); err == nil {
				err = errReplaced
			}
		} else {
			err = fail("opening", s.path, err)
		}
		if err != errReplaced || try == 5 {
			return nil, err
		}
	}
}

func (x *session) close() {
	if x.state >= 0 {
		unix.Close(x.state)
	}
	unix.Close(x.lock)
	unix.Close(x.dir)
}

// load reads the state and, if it does not describe what is on the disk,
// brings the index in order.
func (x *session) load() error {
	var err error
	x.state, err = x.open(stateName, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		x.state = -1
		if err != unix.ENOENT {
			return fail("opening", stateName, err)
		}
		return x.adopt()
	}
	var b [maxState]byte
	n, err := restarted(func() (int, error) { return unix.Pread(x.state, b[:], 0) })
	if err != nil {
		return fail("reading", stateName, err)
	}
	var ok bool
	if x.st, ok = decodeState(b[:n]); !ok {
		return x.adopt()
	}
	now, err := x.look()
	if err != nil {
		return err
	}
	switch {
	case x.s.otherBoot(x.st.boot):
		return x.rebuild(true)
	case x.st.busy || x.st.stamp != now:
		return x.rebuild(false)
	}
	x.buffer = b[:0]
	return nil
}

// adopt takes over a directory without a readable state. It may be that of
// host-local with pods running, so nothing is discarded, unless the link
// beside the lost state tells that it was of another boot.
func (x *session) adopt() error {
	boot, err := x.readlink(bootName)
	if err != nil {
		return err
	}
	x.st.boot = markOf(boot)
	return x.rebuild(x.s.otherBoot(x.st.boot))
}

func (x *session) look() (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(x.dir, &st); err != nil {
		return stamp{}, fail("looking at", x.s.path, err)
	}
	return stampOf(&st), nil
}

// mark makes the state busy. It comes before every change of an operation; a
// second call does nothing.
func (x *session) mark() error {
	if x.marked {
		return nil
	}
	if err := x.before("mark", stateName); err != nil {
		return err
	}
	if x.state < 0 {
		var err error
		x.state, err = x.open(stateName, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK)
		if err != nil {
			return fail("making", stateName, err)
		}
	}
	if err := x.store(true); err != nil {
		return err
	}
	x.marked = true
	return nil
}

// settle stores the state as the truth about the disk.
func (x *session) settle() error {
	if err := x.before("settle", stateName); err != nil {
		return err
	}
	now, err := x.look()
	if err != nil {
		return err
	}
	x.st.stamp = now
	x.st.clock++
	if err := x.store(false); err != nil {
		return err
	}
	x.marked = false
	return nil
}

// store writes the state. A write of this size into the page cache is not
// interrupted by a signal, not even by SIGKILL; and if it were, the checksum
// would tell.
func (x *session) store(busy bool) error {
	x.st.busy = busy
	x.buffer = x.st.encode(x.buffer[:0])
	n, err := restarted(func() (int, error) { return unix.Pwrite(x.state, x.buffer, 0) })
	if err == nil && n < len(x.buffer) {
		err = unix.ENOSPC
	}
	return fail("writing", stateName, err)
}

// wipe removes the whole index, whatever it has become, but for the boot that
// it belongs to.
func (x *session) wipe() error {
	boot, err := x.readlink(bootName)
	if err != nil {
		boot = ""
	}
	if err := x.discard(indexDir); err != nil {
		return err
	}
	if boot == "" {
		return nil
	}
	if err := x.mkdir(indexDir); err != nil {
		return err
	}
	return x.symlink(boot, bootName)
}

// lookup returns the entry of an owner, or nil if there is none.
func (x *session) lookup(o Owner) (*entry, error) {
	name := entryName(o)
	text, err := x.readlink(name)
	if err != nil || text == "" {
		return nil, err
	}
	e, ok := parseEntry(text)
	if !ok || e.owner != o {
		return nil, fail("reading", name, unix.EINVAL)
	}
	return &e, nil
}

// find returns the entry of an owner or, if there is none, that of the
// container's records without an interface name, as host-local does.
func (x *session) find(o Owner) (*entry, error) {
	e, err := x.lookup(o)
	if e == nil && err == nil && x.st.legacy > 0 && o.Interface != "" {
		e, err = x.lookup(Owner{ContainerID: o.ContainerID})
	}
	return e, err
}

// holder reads who has a record of an address. It reports false if the record
// names nobody or does not exist.
func (x *session) holder(name string) (o Owner, ok, exists bool, err error) {
	content, err := x.read(name, maxRecord)
	var e *diskError
	if errors.As(err, &e) {
		switch e.err {
		case unix.ENOENT:
			return o, false, false, nil
		case unix.EISDIR, unix.ELOOP, unix.ENXIO:
			return o, false, true, nil
		}
	}
	if err != nil {
		return o, false, true, fmt.Errorf("reading record: %w", err)
	}
	o, ok = parseRecord(content)
	return o, ok, true, nil
}
