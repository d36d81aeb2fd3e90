package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pause is how long a service that ended by itself stays down: one that cannot
// start must not take a processor.
const pause = 300 * time.Millisecond

// supervisor keeps services running, and buries processes whose parents have
// ended, as the first process of a PID namespace has to.
type supervisor struct {
	spec Spec

	lock     sync.Mutex
	services map[string]*service
}

type service struct {
	Service
	wanted bool
	pid    int           // 0 while it does not run
	ended  chan struct{} // closed when the process of pid has ended
}

func newSupervisor(spec Spec) *supervisor {
	s := &supervisor{spec: spec, services: map[string]*service{}}
	for _, one := range spec.Services {
		s.services[one.Name] = &service{Service: one}
	}
	return s
}

// start starts a service that is not running. The name is one of the spec's.
func (s *supervisor) start(name string) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	one, exists := s.services[name]
	if !exists {
		return fmt.Errorf("machine %s has no service %s", s.spec.Name, name)
	}
	one.wanted = true
	if one.pid != 0 {
		return nil
	}
	return s.launch(one)
}

// launch starts the process of a service; the lock is held, so that it is not
// reaped before it is known.
func (s *supervisor) launch(one *service) error {
	log, err := os.OpenFile(s.spec.Log(one.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	empty, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer empty.Close()
	path, err := find(one.Args[0])
	if err != nil {
		return fmt.Errorf("starting %s: %w", one.Name, err)
	}
	process, err := os.StartProcess(path, one.Args, &os.ProcAttr{
		Dir: "/", Env: append(os.Environ(), one.Env...), Files: []*os.File{empty, log, log},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("starting %s: %w", one.Name, err)
	}
	one.pid, one.ended = process.Pid, make(chan struct{})
	// The reaper waits for it, and os is not to.
	return process.Release()
}

// find looks a program up like a shell; exec.LookPath would do, if it took the
// PATH that the machine was started with for its own.
func find(program string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	for _, directory := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(directory, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in %s: %w", program, os.Getenv("PATH"), fs.ErrNotExist)
}

// reap waits for all processes, for as long as the machine lives.
func (s *supervisor) reap() {
	for {
		// Without taking its status: a service that ends at once must be known
		// before its PID is free for another.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.ECHILD) {
			time.Sleep(pause) // nothing runs, and nothing tells when that changes
			continue
		}
		if err != nil {
			continue // interrupted
		}
		s.lock.Lock()
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == nil && pid > 0 {
			s.buried(pid, status)
		}
		s.lock.Unlock()
	}
}

// buried notes that a process has ended, and starts it anew if it was a
// service that is wanted; the lock is held.
func (s *supervisor) buried(pid int, status unix.WaitStatus) {
	for _, one := range s.services {
		if one.pid != pid {
			continue
		}
		one.pid = 0
		close(one.ended)
		fmt.Fprintf(os.Stderr, "%s %s ended (status %d, signal %d)\n",
			time.Now().Format(time.RFC3339), one.Name, status.ExitStatus(), status.Signal())
		time.AfterFunc(pause, func() {
			s.lock.Lock()
			defer s.lock.Unlock()
			if one.wanted && one.pid == 0 {
				if err := s.launch(one); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		})
	}
}

// stop ends a service and waits for its end: SIGTERM, and SIGKILL after ten
// seconds.
func (s *supervisor) stop(name string) error {
	s.lock.Lock()
	one, exists := s.services[name]
	if !exists {
		s.lock.Unlock()
		return fmt.Errorf("machine %s has no service %s", s.spec.Name, name)
	}
	one.wanted = false
	pid, ended := one.pid, one.ended
	if pid != 0 {
		unix.Kill(pid, unix.SIGTERM)
	}
	s.lock.Unlock()
	if pid == 0 {
		return nil
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		s.lock.Lock()
		if one.pid == pid {
			unix.Kill(pid, unix.SIGKILL)
		}
		s.lock.Unlock()
		<-ended
	}
	return nil
}

// socket is where a machine takes orders.
func socket(directory string) string { return filepath.Join(directory, "control") }

// listen serves orders: one line a connection, "start NAME", "stop NAME" or
// "restart NAME", answered by "ok" or an error.
func (s *supervisor) listen() error {
	path := socket(s.spec.Directory)
	os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listening for orders: %w", err)
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				line, err := bufio.NewReader(connection).ReadString('\n')
				if err != nil {
					return
				}
				if err := s.obey(strings.Fields(line)); err != nil {
					fmt.Fprintln(connection, err)
					return
				}
				fmt.Fprintln(connection, "ok")
			}()
		}
	}()
	return nil
}

func (s *supervisor) obey(order []string) error {
	if len(order) != 2 {
		return fmt.Errorf("order %q: two words are wanted", order)
	}
	switch order[0] {
	case "start":
		return s.start(order[1])
	case "stop":
		return s.stop(order[1])
	case "restart":
		return errors.Join(s.stop(order[1]), s.start(order[1]))
	default:
		return fmt.Errorf("order %s: start, stop and restart are known", order[0])
	}
}

// Order tells the machine in directory to start, stop or restart a service,
// and returns when that is done.
func Order(directory, verb, service string) error {
	connection, err := net.Dial("unix", socket(directory))
	if err != nil {
		return fmt.Errorf("reaching machine in %s: %w", directory, err)
	}
	defer connection.Close()
	fmt.Fprintln(connection, verb, service)
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return fmt.Errorf("telling machine in %s to %s %s: %w", directory, verb, service, err)
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return errors.New(answer)
	}
	return nil
}
