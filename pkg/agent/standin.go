package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// standIn answers where load balancers and monitoring expect kube-proxy. That may still
// run and have the address, which is no reason to end: it is a problem that the status
// lists, and tried again until the address is free.
type standIn struct {
	flag    string // that says where
	address string // address:port
	handler http.Handler
	kind    problem.Kind // of the problem where it cannot listen
	changed func()       // is called when the problem comes or goes

	deaf atomic.Pointer[error] // why nobody can ask
}

// listenAgain is the pause before an address that is in use is tried again.
const listenAgain = 10 * time.Second

// run answers until ctx ends.
func (s *standIn) run(ctx context.Context) error {
	server := &http.Server{Handler: s.handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	for {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
		if err == nil {
			s.note(nil)
			if err = server.Serve(listener); errors.Is(err, http.ErrServerClosed) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		s.note(fmt.Errorf("listening: %w", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenAgain):
		}
	}
}

// note says so where the problem is another, or over: that nothing has changed is no
// reason to look at all that Services depend on.
func (s *standIn) note(err error) {
	var now *error
	if err != nil {
		now = &err
	}
	before := s.deaf.Swap(now)
	if (before == nil) != (now == nil) || before != nil && (*before).Error() != err.Error() {
		s.changed()
	}
}
