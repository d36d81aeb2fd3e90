package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kinds are the two locks: whole is flock's, the other one that of a byte.
var kinds = map[string]func(ctx context.Context, fd int) error{
	"flock": func(ctx context.Context, fd int) error { return Flock(ctx, fd, unix.LOCK_EX) },
	"byte":  Byte,
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// One at a time has the lock, and closing the file gives it to the next.
func TestOneAtATime(t *testing.T) {
	for name, take := range kinds {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			var in atomic.Int32
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					for range 100 {
						file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
						if err != nil {
							t.Error(err)
							return
						}
						if err := take(t.Context(), int(file.Fd())); err != nil {
							t.Error(err)
						}
						if n := in.Add(1); n > 1 {
							t.Errorf("%d at a time", n)
						}
						in.Add(-1)
						file.Close()
					}
				})
			}
			all.Wait()
		})
	}
}

// Who gives up says why, and does not have the lock later: neither while it is
// another one's nor once its turn would have come.
func TestGivingUp(t *testing.T) {
	for name, take := range kinds {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			holder := open(t, path)
			if err := take(t.Context(), int(holder.Fd())); err != nil {
				t.Fatal(err)
			}
			enough := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			waiter := open(t, path)
			gaveUp := make(chan error)
			go func() { gaveUp <- take(ctx, int(waiter.Fd())) }()
			time.AfterFunc(time.Millisecond, func() { cancel(enough) })
			if err := <-gaveUp; !errors.Is(err, enough) {
				t.Errorf("gave up: %v", err)
			}
			waiter.Close()
			// Who comes with a context that has ended does not wait at all.
			late := open(t, path)
			if err := take(ctx, int(late.Fd())); !errors.Is(err, enough) {
				t.Errorf("too late: %v", err)
			}
			holder.Close()
			if err := take(t.Context(), int(late.Fd())); err != nil {
				t.Errorf("free again: %v", err)
			}
		})
	}
}

// The two kinds do not see each other, and a try does not wait.
func TestTwoKinds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	one, other := open(t, path), open(t, path)
	if err := Flock(t.Context(), int(one.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if held, err := TryByte(int(other.Fd())); !held || err != nil {
		t.Errorf("byte beside flock: %v, %v", held, err)
	}
	if held, err := TryByte(int(one.Fd())); held || err != nil {
		t.Errorf("byte that another one has: %v, %v", held, err)
	}
	if err := UnlockByte(int(other.Fd())); err != nil {
		t.Error(err)
	}
	if held, err := TryByte(int(one.Fd())); !held || err != nil {
		t.Errorf("byte that was given back: %v, %v", held, err)
	}
}

// A file that is not open is the kernel's error.
func TestBadDescriptor(t *testing.T) {
	for name, take := range kinds {
		if err := take(t.Context(), -1); !errors.Is(err, unix.EBADF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who asks whether a lock is held is told, and leaves it as it is.
func TestHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	check := func(when string, want bool) {
		t.Helper()
		for range 2 {
			if held, err := Held(path); held != want || err != nil {
				t.Errorf("%s: held is %v, %v", when, held, err)
			}
		}
	}
	check("without a file", false)
	if _, err := os.Stat(path); err == nil {
		t.Error("the file was made")
	}
	file := open(t, path)
	check("without a lock", false)
	if err := Flock(t.Context(), int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	check("locked", true)
	if err := unix.Flock(int(file.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	check("unlocked", false)
	if held, err := Held(filepath.Join(path, "below")); held || err == nil {
		t.Errorf("what cannot be opened: held is %v, %v", held, err)
	}
}
