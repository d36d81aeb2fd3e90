package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// lockPath is the file that the flatnetd of a state directory locks.
func lockPath(stateDir string) string { return netconf.AgentLock(stateDir) }

// lockNode waits until no other flatnetd works on the node: during an update the
// old one may still be there. The lock ends with the process, however it ends.
func lockNode(ctx context.Context, stateDir string, log *slog.Logger) (*os.File, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("making state directory: %w", err)
	}
	path := lockPath(stateDir)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	const pause = 50 * time.Millisecond
	for waited := false; ; waited = true {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if !waited {
			log.Info("waiting for another flatnetd of this node to end", "lock", path)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("another flatnetd of this node holds %s: %w", path, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
