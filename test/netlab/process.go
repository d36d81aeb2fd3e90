package netlab

import (
	"fmt"
	"os/exec"
	"syscall"
)

// Start starts cmd in the namespace; wait returns when it has ended, and may be
// called any number of times. The process dies with the caller's, however that
// ends.
func (n *Namespace) Start(cmd *exec.Cmd) (wait func() error, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, ended := make(chan error, 1), make(chan struct{})
	var result error
	go func() {
		defer close(ended)
		// The death signal is tied to the thread that forked: it has to live as
		// long as the process.
		err := n.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				result = cmd.Wait()
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s in namespace %s: %w", cmd.Path, n.Name, err)
	}
	return func() error {
		<-ended
		return result
	}, nil
}
