package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// Execution is another plugin's, with the environment of this one.
//
// The CNI library's package invoke does the same; it also links an HTTP stack
// for tracing, which makes every ADD, delegated or not, slower to start by a
// quarter of a millisecond.
type Execution struct {
	Request *Request // whose container, interface, namespace and CNI_PATH
	Kind    string   // for errors: "IPAM plugin"
	Plugin  string   // its type, the name of its program
	Config  []byte
	Missing string // what to do where the program is not there
}

// executionTimeout bounds an execution of another plugin. A kubelet gives a
// sandbox 4 minutes and then kills what runs; before that, an error can still
// say what was waited for.
const executionTimeout = time.Minute

// Run executes the plugin and returns its standard output. Its standard error
// becomes ours. Errors are typed: what the plugin reported, or [CodeDelegate].
func (e *Execution) Run(ctx context.Context, verb string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, executionTimeout)
	defer cancel()
	path, found := e.Find()
	if !found {
		// Not "not found": container runtimes take a DEL that says so for done.
		return nil, Fail(CodeDelegate, fmt.Sprintf("%s %s is not in CNI_PATH %s", e.Kind, e.Plugin, e.Request.Path), e.Missing)
	}
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	// GC releases attachments that its own environment does not name.
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+e.Request.ContainerID,
		"CNI_IFNAME="+e.Request.IfName, "CNI_NETNS="+e.Request.Netns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(e.Config), &stdout, os.Stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, Fail(types.ErrTryAgainLater, fmt.Sprintf("%s %s: %s took too long", e.Kind, e.Plugin, verb), "")
	}
	var exit *exec.ExitError
	var reported types.Error
	if errors.As(err, &exit) && json.Unmarshal(stdout.Bytes(), &reported) == nil && reported.Msg != "" {
		return nil, Fail(reported.Code, fmt.Sprintf("%s %s: %s", e.Kind, e.Plugin, reported.Msg), reported.Details)
	}
	return nil, Fail(CodeDelegate, fmt.Sprintf("%s %s: %s: %v", e.Kind, e.Plugin, verb, err), strings.TrimSpace(stdout.String()))
}

// Find returns the program's path, of the first directory of CNI_PATH that has it.
func (e *Execution) Find() (path string, found bool) {
	for _, directory := range filepath.SplitList(e.Request.Path) {
		path := filepath.Join(directory, e.Plugin)
		if info, err := os.Stat(path); directory != "" && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}
