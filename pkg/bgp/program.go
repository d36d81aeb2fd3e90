package bgp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// Program runs flatnet-bgp, and starts it again where it ends.
type Program struct {
	Path string
	Log  *slog.Logger
	// Tell is given its events in their order, on a goroutine of the program's. One that
	// is of no neighbour and no answer says that it has ended.
	Tell func(message.Event)
	// Leave reports, when the work ends, whether the node goes for good: then neighbours are
	// told so.
	Leave func() bool
	// Ended is called when it has ended by itself, or could not begin.
	Ended func()

	wanted loop.Latest[Desired]
}

// NewProgram returns one that does not run.
func NewProgram(path string, log *slog.Logger) *Program {
	return &Program{Path: path, Log: log, Leave: func() bool { return false }, Ended: func() {}, wanted: loop.NewLatest[Desired]()}
}

// Want says what is to be done. It does not wait.
func (p *Program) Want(d Desired) { p.wanted.Put(d) }

// The pauses between starts of what ends by itself.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 30 * time.Second
	// goodbyeTime is how long neighbours may take to be told that the node goes.
	goodbyeTime = 5 * time.Second
)

// Run runs it while ctx lasts, from when something is wanted. When ctx ends it ends too,
// and neighbours keep the node's routes for a while.
func (p *Program) Run(ctx context.Context) error {
	var d Desired
	select {
	case <-ctx.Done():
		return nil
	case d = <-p.wanted:
	}
	pause := firstPause
	for {
		began := time.Now()
		err := p.once(ctx, &d)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errOther) {
			pause = firstPause
			continue
		}
		p.Log.Error("flatnet-bgp has ended, starting it again", "error", err)
		p.Ended()
		p.Tell(message.Event{Error: err.Error()})
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(lastPause, 2*pause)
	}
}

// errOther says that something else is wanted than what can be changed.
var errOther = errors.New("another AS, router id, port or restart time")

// once runs the program until it ends, or ctx, or something is wanted that takes another.
func (p *Program) once(ctx context.Context, d *Desired) error {
	r, err := start(p.Path, p.Log)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- r.events(p.Tell) }()
	finish := func() error {
		r.input.Close()
		err := <-ended
		return errors.Join(err, r.cmd.Wait())
	}
	if err := r.send(*d); err != nil {
		return errors.Join(err, finish())
	}
	for {
		select {
		case err := <-ended:
			r.input.Close()
			return cmpErr(errors.Join(err, r.cmd.Wait()))
		case <-ctx.Done():
			if p.Leave() {
				_ = r.goodbye(*d, ended) // it may have ended
			} else {
				_ = finish()
			}
			return nil
		case next := <-p.wanted:
			other := next.Global != d.Global
			*d = next
			if other {
				_ = finish()
				// Sessions go, and come back with routes kept on both sides.
				p.Tell(message.Event{Error: errOther.Error()})
				return errOther
			}
			if err := r.send(next); err != nil {
				return errors.Join(err, finish())
			}
		}
	}
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// running is a flatnet-bgp.
type running struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output io.Reader
}

func start(path string, log *slog.Logger) (*running, error) {
	r := &running{cmd: exec.Command(path)}
	r.cmd.Stderr = logged{log}
	var err error
	if r.input, err = r.cmd.StdinPipe(); err == nil {
		r.output, err = r.cmd.StdoutPipe()
	}
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	return r, nil
}

func (r *running) send(d Desired) error {
	raw, err := json.Marshal(d)
	if err == nil {
		_, err = r.input.Write(append(raw, '\n'))
	}
	if err != nil {
		return fmt.Errorf("telling flatnet-bgp what is wanted: %w", err)
	}
	return nil
}

// goodbye has it tell neighbours that the node goes, and end. What events returns comes by
// ended.
func (r *running) goodbye(d Desired, ended <-chan error) error {
	kill := time.AfterFunc(goodbyeTime, func() { _ = r.cmd.Process.Kill() })
	defer kill.Stop()
	d.Leave = true
	err := r.send(d)
	r.input.Close()
	<-ended
	return errors.Join(err, r.cmd.Wait())
}

// events tells all until there are no more.
func (r *running) events(tell func(message.Event)) error {
	decoder := json.NewDecoder(bufio.NewReaderSize(r.output, 64<<10))
	for {
		var e message.Event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading what flatnet-bgp tells: %w", err)
		}
		tell(e)
	}
}

// logged writes lines of the program's to the log.
type logged struct{ log *slog.Logger }

func (l logged) Write(text []byte) (int, error) {
	l.log.Warn("flatnet-bgp", "says", string(text))
	return len(text), nil
}

// Withdraw tells neighbours, of whom a run before may have left them routes, that there is
// nothing behind this node any more. It returns the names of those who were told.
func Withdraw(ctx context.Context, path string, d Desired, log *slog.Logger) (told []string, err error) {
	r, err := start(path, log)
	if err != nil {
		return nil, err
	}
	d.Global.RestartSeconds = 0 // nothing is to be kept
	d.Announce = nil
	reached := make(chan string, len(d.Neighbours))
	ended := make(chan error, 1)
	go func() {
		known := map[string]bool{}
		ended <- r.events(func(e message.Event) {
			if e.Session != nil && e.Session.Established && !known[e.Neighbour] {
				known[e.Neighbour] = true
				reached <- e.Neighbour
			}
		})
	}()
	err = r.send(d)
	for err == nil && len(told) < len(d.Neighbours) {
		select {
		case <-ctx.Done():
			err = fmt.Errorf("%d of %d peers could not be told that this node has nothing any more: they keep its routes for the restart time", len(d.Neighbours)-len(told), len(d.Neighbours))
		case name := <-reached:
			told = append(told, name)
		case err = <-ended:
			ended <- nil
			err = cmpErr(err)
		}
	}
	return told, errors.Join(err, r.goodbye(d, ended))
}
