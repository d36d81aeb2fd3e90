package ipam

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain has the tests work on a tmpfs, as the default directory is one, and
// lets the test program be the child that TestProcesses starts.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	const tmpfs = "/dev/shm"
	var st unix.Statfs_t
	if os.Getenv("TMPDIR") == "" && unix.Statfs(tmpfs, &st) == nil && st.Type == unix.TMPFS_MAGIC && unix.Access(tmpfs, unix.W_OK) == nil {
		os.Setenv("TMPDIR", tmpfs)
	}
	os.Exit(m.Run())
}
