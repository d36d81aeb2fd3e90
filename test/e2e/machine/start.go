package machine

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// command is the program's argument that makes it a machine.
const command = "machine"

// Files that a machine's process is born with.
const (
	goFD       = 3 + iota // read until its end before anything is done
	reportFD              // what went wrong, or nothing
	listenerFD            // where Forward says so
)

// Machine is one that was started and does nothing yet: the caller connects
// its network, and calls Go.
type Machine struct {
	Spec Spec
	PID  int

	goOn   *os.File // written to and closed to let it begin
	report *os.File // what it says about its start
	exit   <-chan error
}

// Start makes the namespaces of a machine. remember is called with the PID
// before the process does anything: if this program dies in between, the
// process ends by itself. A listener is handed over, where the spec has an
// address to forward to.
func Start(spec Spec, listener *net.TCPListener, remember func(pid int) error) (m *Machine, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("starting machine %s: %w", spec.Name, err)
		}
	}()
	if err := spec.save(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding own executable: %w", err)
	}
	log, err := os.OpenFile(spec.Log("machine"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	goIn, goOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer goIn.Close()
	reportIn, reportOut, err := os.Pipe()
	if err != nil {
		goOut.Close()
		return nil, err
	}
	defer reportOut.Close()

	cmd := &exec.Cmd{
		Path: self, Args: []string{"flatnet-cluster", command, spec.Directory},
		Stdout: log, Stderr: log, Dir: "/",
		Env:        append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
		ExtraFiles: []*os.File{goIn, reportOut},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
			Setsid:     true, // the terminal's signals are not for it
		},
	}
	if spec.Forward != "" {
		file, err := listener.File()
		if err != nil {
			goOut.Close()
			return nil, fmt.Errorf("handing over listener: %w", err)
		}
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	if err := cmd.Start(); err != nil {
		goOut.Close()
		reportIn.Close()
		return nil, fmt.Errorf("making namespaces (this needs root): %w", err)
	}
	exit := make(chan error, 1)
	go func() { exit <- cmd.Wait() }()
	m = &Machine{Spec: spec, PID: cmd.Process.Pid, goOn: goOut, report: reportIn, exit: exit}
	if err := remember(m.PID); err != nil {
		goOut.Close() // it ends
		<-exit
		return nil, err
	}
	return m, nil
}

// Go lets the machine begin, and returns when its file systems are made and
// its services were started, or with what went wrong.
func (m *Machine) Go() error {
	defer m.report.Close()
	if _, err := m.goOn.WriteString(begin); err != nil {
		return fmt.Errorf("beginning with machine %s: %w", m.Spec.Name, err)
	}
	m.goOn.Close()
	text, err := io.ReadAll(m.report)
	if err != nil {
		return fmt.Errorf("hearing from machine %s: %w", m.Spec.Name, err)
	}
	switch text := strings.TrimSpace(string(text)); text {
	case begun:
		return nil
	case "":
		return fmt.Errorf("machine %s ended at once; see %s", m.Spec.Name, m.Spec.Log("machine"))
	default:
		return fmt.Errorf("machine %s: %s", m.Spec.Name, text)
	}
}

const (
	begin = "go\n"
	begun = "ready"
)

// Namespace is the path of a namespace of a machine's process, by its kind as
// in /proc: net, mnt, pid.
func Namespace(pid int, kind string) string {
	return filepath.Join("/proc", fmt.Sprint(pid), "ns", kind)
}

// Command is a program that runs in all namespaces of a machine.
// Equivalent to: `nsenter --target PID --all …`.
func Command(pid int, args ...string) *exec.Cmd {
	all := append([]string{"--target", fmt.Sprint(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}, args...)
	cmd := exec.Command("nsenter", all...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"CONTAINERD_NAMESPACE=k8s.io")
	return cmd
}
