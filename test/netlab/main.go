package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideVariable marks a process that [Enter] has already moved into
// namespaces of its own.
const insideVariable = "FLATNET_NETLAB"

// Main runs the tests of a package in namespaces of their own (see [Enter]).
// Use it as the package's TestMain:
//
//	func TestMain(m *testing.M) { netlab.Main(m) }
//
// Where the machine allows no such namespaces, Main prints what is missing
// and exits with status 1: a test that cannot run has not passed.
func Main(m *testing.M) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "netlab:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Enter executes the current program anew in fresh mount and network
// namespaces and does not return in the first process; in the second it mounts
// an empty tmpfs on /run, brings lo up and returns nil. Root does this
// directly; everybody else becomes root in a user namespace first. It is what
// `unshare -nm` does for root and `unshare -rnm` for others.
//
// So whatever a test or a demonstration does to interfaces, routes, nftables,
// /run and mounts ends with its process, and never meets the machine's own.
func Enter() error {
	if os.Getenv(insideVariable) != "" {
		return furnish()
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding own executable: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	// The child decides what Ctrl-C means. It gets that of a terminal by itself,
	// as a member of the process group, and maybe twice; a signal that somebody
	// sends to this process alone has to be passed on. Signals are caught, not
	// ignored, because the child would inherit that.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	err = runLocked(cmd, signals)
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		if exit.ExitCode() >= 0 {
			os.Exit(exit.ExitCode())
		}
		return fmt.Errorf("running %s in new namespaces: %w", self, err)
	case os.Geteuid() != 0:
		return fmt.Errorf("this needs root, or user namespaces for uid %d, and the kernel refused: %w "+
			"(as root: sysctl -w user.max_user_namespaces=15000; on Debian and Ubuntu also "+
			"kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0 where they exist)",
			os.Geteuid(), err)
	}
	return fmt.Errorf("this needs CAP_SYS_ADMIN for new network and mount namespaces, and the kernel refused: %w", err)
}

// furnish makes the fresh namespaces fit for use.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a tmpfs on /run: %w", err)
	}
	self, err := Current()
	if err != nil {
		return err
	}
	defer self.Close()
	return self.Up("lo")
}
