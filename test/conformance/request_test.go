package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/pace"
)

// deadline is when a plugin counts as hung.
var deadline = pace.Far()

// request is one execution of a plugin.
type request struct {
	path  string            // the binary
	env   map[string]string // its whole environment
	stdin []byte
	// confine, if set, runs on the thread that executes the plugin, in the
	// node's network namespace and a mount namespace of its own.
	confine func() error
}

// reply is what came of it.
type reply struct {
	stdout, stderr string
	exit           int // -1: did not end by itself
	took           time.Duration
	broken         error // not executed, hung, or left a child holding stdout
}

// run executes the request in the current thread's network namespace.
func (r request) run() reply {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, r.path)
	cmd.Env = []string{} // not nil, which would be our own environment
	for _, key := range slices.Sorted(maps.Keys(r.env)) {
		cmd.Env = append(cmd.Env, key+"="+r.env[key])
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(r.stdin), &stdout, &stderr
	cmd.WaitDelay = deadline // for the end of stdout, after that of the process
	start := time.Now()
	err := cmd.Run()
	out := reply{stdout: stdout.String(), stderr: stderr.String(), exit: -1, took: time.Since(start)}
	var status *exec.ExitError
	if cmd.ProcessState != nil {
		out.exit = cmd.ProcessState.ExitCode()
	}
	switch {
	case ctx.Err() != nil:
		out.broken = fmt.Errorf("it had not ended after %v", deadline)
	case err != nil && !errors.As(err, &status):
		out.broken = err
	}
	return out
}

// String describes the reply in a line.
func (r reply) String() string {
	text := fmt.Sprintf("exit code %d, stdout %q", r.exit, strings.TrimSpace(r.stdout))
	if r.stderr != "" {
		text += fmt.Sprintf(", stderr %q", strings.TrimSpace(r.stderr))
	}
	if r.broken != nil {
		text += ", " + r.broken.Error()
	}
	return text
}

// documents returns the JSON documents that make up text.
func documents(text string) ([]json.RawMessage, error) {
	var found []json.RawMessage
	decoder := json.NewDecoder(strings.NewReader(text))
	for {
		var document json.RawMessage
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, fmt.Errorf("stdout is not JSON: %w", err)
		}
		found = append(found, document)
	}
}

// cniError is the error object of the specification.
type cniError struct {
	CNIVersion string `json:"cniVersion"`
	Code       uint   `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details"`
}

// text is all that the operator gets to read.
func (e cniError) text() string { return e.Msg + "; " + e.Details }

// failure returns the error object that an unsuccessful execution printed.
func (r reply) failure() (cniError, error) {
	var e cniError
	switch {
	case r.broken != nil:
		return e, r.broken
	case r.exit <= 0:
		return e, fmt.Errorf("it did not fail: %v", r)
	}
	found, err := documents(r.stdout)
	if err != nil {
		return e, err
	}
	if len(found) != 1 {
		return e, fmt.Errorf("%d JSON documents on stdout instead of one: %v", len(found), r)
	}
	if err := json.Unmarshal(found[0], &e); err != nil {
		return e, fmt.Errorf("error object: %w: %v", err, r)
	}
	if e.Code == 0 || e.Msg == "" {
		return e, fmt.Errorf("an error object needs a code above 0 and a msg: %v", r)
	}
	return e, nil
}

// readOnly makes a file below /proc/sys read-only for this thread, which must
// be in a mount namespace of its own.
func readOnly(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s: %w", path, err)
	}
	// In a user namespace the flags that the mount came with cannot be taken away.
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("", path, "", flags, ""); err != nil {
		return fmt.Errorf("making %s read-only: %w", path, err)
	}
	if file, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		file.Close()
		return fmt.Errorf("%s is still writable", path)
	}
	return nil
}

// ownMounts gives the thread a mount namespace of its own.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making mount namespace: %w", err)
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}
