package kubectl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
)

// executor executes a command in a container of a pod, and returns what it wrote to
// standard output.
type executor interface {
	Exec(ctx context.Context, in container, command ...string) ([]byte, error)
}

// container is where a command is executed.
type container struct{ Namespace, Pod, Name string }

// exitError is that of a command that ran, and said that it could not do it.
type exitError struct {
	status int
	said   string // on standard error
}

func (e exitError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("it ended with status %d", e.status)
	}
	return e.said
}

// largestAnswer bounds what one command may say: at 5,000 nodes the full status of one of
// them is 2 MB.
const largestAnswer = 64 << 20

var errTooLong = fmt.Errorf("the answer is longer than %d MB", largestAnswer>>20)

// Exec does as kubectl exec does: over a websocket, or SPDY where something between
// does not let that pass.
func (c *client) Exec(ctx context.Context, in container, command ...string) ([]byte, error) {
	request := c.core.Post().Namespace(in.Namespace).Resource("pods").Name(in.Pod).SubResource("exec").
		Param("container", in.Name).Param("stdout", "true").Param("stderr", "true")
	for _, word := range command {
		request.Param("command", word)
	}
	out, errOut := &bounded{most: largestAnswer}, &bounded{most: 64 << 10}
	ended := make(chan error, 1)
	// What connects by SPDY waits for an answer without asking ctx, so it is waited for here.
	go func() {
		ended <- c.stream(ctx, request.URL(), remotecommand.StreamOptions{Stdout: out, Stderr: errOut})
	}()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		// Somebody may still write to the buffers.
		return nil, context.Cause(ctx)
	}
	var exit exec.CodeExitError
	switch {
	case out.full:
		return nil, errTooLong
	case errors.As(err, &exit):
		return out.Bytes(), exitError{exit.Code, strings.TrimSpace(errOut.String())}
	case err != nil:
		return nil, err
	}
	return out.Bytes(), nil
}

// stream executes what the address says.
func (c *client) stream(ctx context.Context, address *url.URL, to remotecommand.StreamOptions) error {
	way, err := remotecommand.NewWebSocketExecutor(c.config, "GET", address.String())
	if err == nil {
		err = way.StreamWithContext(ctx, to)
	}
	if httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) {
		// Nothing of it was executed.
		if way, err = remotecommand.NewSPDYExecutor(c.config, "POST", address); err == nil {
			err = way.StreamWithContext(ctx, to)
		}
	}
	return err
}

// bounded keeps the beginning of what is written, and lets the rest go.
type bounded struct {
	bytes.Buffer
	most int
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if room := b.most - b.Len(); n > room {
		b.full = true
		p = p[:room]
	}
	_, err := b.Buffer.Write(p)
	return n, err
}
