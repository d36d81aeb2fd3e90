package announce

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is a clock that a program that is restarted reads as the one before did.
func sinceBoot() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // which every kernel has
	return time.Duration(t.Nano())
}

// promise keeps in a file until when the node takes nothing over, for a program that comes
// after this one. Half a file is all of a promise.
func promise(path string) error {
	if err := os.WriteFile(path, []byte(strconv.FormatInt(int64(sinceBoot()+Duration), 10)+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing down what was promised: %w", err)
	}
	return nil
}

// promised returns for how long from now what a program before this one has promised holds.
// It is not long; so where the file cannot be read, it may be all of that.
func promised(path string) time.Duration {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	number, whole := strings.CutSuffix(string(text), "\n")
	end, wrong := strconv.ParseInt(number, 10, 64)
	if err != nil || wrong != nil || !whole {
		return Duration
	}
	return min(max(time.Duration(end)-sinceBoot(), 0), Duration)
}
