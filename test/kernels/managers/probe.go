package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// patience is how long a new connection may take.
const patience = 3 * time.Second

// rhythm is how often each path is tried. An emulated machine is slow, and how slow
// depends on what it is emulated on: the probes shall leave it most of its time.
type rhythm struct {
	connect time.Duration // a connection is made, asked over, and ended
	ask     time.Duration // over a connection that is there
}

// paceOf goes by how long it took to make a connection on every path, one after the other.
func paceOf(round time.Duration) rhythm {
	connect := max(100*time.Millisecond, 4*round).Round(10 * time.Millisecond)
	return rhythm{connect: connect, ask: max(20*time.Millisecond, connect/4)}
}

// space is a network namespace and a thread in it that makes sockets.
type space struct {
	*netlab.Namespace
	work chan func()
}

func newSpace(n *netlab.Namespace) *space {
	s := &space{n, make(chan func())}
	go func() {
		_ = n.Do(func() error {
			for f := range s.work {
				f()
			}
			return nil
		})
	}()
	return s
}

// dial begins a connection, and does not wait for it: the first write does.
func (s *space) dial(to netip.AddrPort) (net.Conn, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	s.work <- func() {
		family := unix.AF_INET6
		var address unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		if to.Addr().Is4() {
			family = unix.AF_INET
			address = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			if err = unix.Connect(fd, address); errors.Is(err, unix.EINPROGRESS) {
				err = nil
			}
			if err != nil {
				unix.Close(fd)
			}
		}
		done <- result{fd, err}
	}
	r := <-done
	if r.err != nil {
		return nil, r.err
	}
	file := os.NewFile(uintptr(r.fd), to.String())
	defer file.Close()
	return net.FileConn(file)
}

// serve answers every byte with the source that it sees.
func serve(n *netlab.Namespace, at netip.AddrPort) error {
	var listener net.Listener
	err := n.Do(func() (err error) {
		listener, err = net.Listen("tcp", at.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("serving in namespace %s: %w", n.Name, err)
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				remote, _ := netip.ParseAddrPort(c.RemoteAddr().String())
				answer := []byte(remote.Addr().Unmap().String() + "\n")
				one := make([]byte, 1)
				for {
					if _, err := c.Read(one); err != nil {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return nil
}

// path is a way that connections take.
type path struct {
	name   string
	from   *space
	to     netip.AddrPort
	source netip.Addr // that the server has to see; any if it is zero

	mu          sync.Mutex
	connection  net.Conn // the established one
	broken      error    // it is broken by
	begin, last time.Time
	gap         time.Duration // the longest without an answer
	gapAt       time.Time     // its begin
	tries       []try
}

// try is a new connection.
type try struct {
	at  time.Time
	err error // nil if it is right; not yet known until known
}

func (p *path) wrongSource(line string) error {
	if source := strings.TrimSpace(line); p.source.IsValid() && source != p.source.String() {
		return fmt.Errorf("its source is %s", source)
	}
	return nil
}

// ask makes a connection and asks once.
func (p *path) ask() error {
	c, err := p.from.dial(p.to)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if t, is := c.(*net.TCPConn); is {
		t.SetLinger(0) // no TIME_WAIT: there are many
	}
	if _, err := c.Write([]byte{'?'}); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	return p.wrongSource(line)
}

// probe tries until stop is closed.
func (p *path) probe(pace rhythm, stop <-chan struct{}) {
	go p.keepAsking(pace.ask, stop)
	// A machine that cannot follow is not asked more.
	running := make(chan struct{}, 3)
	for {
		select {
		case <-stop:
			return
		case <-time.After(pace.connect):
		}
		running <- struct{}{}
		at := time.Now()
		go func() {
			defer func() { <-running }()
			err := p.ask()
			p.mu.Lock()
			defer p.mu.Unlock()
			if !at.Before(p.begin) { // else it is of the row before
				p.tries = append(p.tries, try{at, err})
			}
		}()
	}
}

// establish opens the connection that is to survive.
func (p *path) establish() {
	p.mu.Lock()
	old := p.connection
	p.connection = nil
	p.mu.Unlock()
	if old != nil {
		old.Close()
	}
	c, err := p.from.dial(p.to)
	if err == nil {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		var line string
		if _, err = c.Write([]byte{'?'}); err == nil {
			if line, err = bufio.NewReader(c).ReadString('\n'); err == nil {
				err = p.wrongSource(line)
			}
		}
		c.SetDeadline(time.Time{})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
	if err != nil {
		if c != nil {
			c.Close()
		}
		return
	}
	p.connection = c
	p.last, p.gap = time.Now(), 0
	go p.listen(c)
}

func (p *path) listen(c net.Conn) {
	lines := bufio.NewReader(c)
	for {
		_, err := lines.ReadString('\n')
		now := time.Now()
		p.mu.Lock()
		if p.connection != c {
			p.mu.Unlock()
			return
		}
		if err != nil {
			if p.broken == nil {
				p.broken = err
			}
			p.mu.Unlock()
			return
		}
		if now.Sub(p.last) > p.gap {
			p.gap, p.gapAt = now.Sub(p.last), p.last
		}
		p.last = now
		p.mu.Unlock()
	}
}

func (p *path) keepAsking(every time.Duration, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(every):
		}
		p.mu.Lock()
		c := p.connection
		p.mu.Unlock()
		if c == nil {
			continue
		}
		c.SetWriteDeadline(time.Now().Add(every))
		if _, err := c.Write([]byte{'?'}); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			p.mu.Lock()
			if p.connection == c && p.broken == nil && !errors.Is(err, io.EOF) {
				p.broken = err
			}
			p.mu.Unlock()
		}
	}
}

// forget begins anew to note what happens.
func (p *path) forget(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries, p.begin, p.gap = nil, now, 0
}

// Outcome is what became of a path since an action began.
type Outcome struct {
	Path string `json:"path"`
	// New connections: how many were tried and how many were wrong, and when the
	// first and last wrong ones began, in milliseconds after the action's begin.
	Tries, Lost, First, Last int
	Broken                   bool   // the last tries are wrong
	Why                      string // of the last wrong one
	// The established connection: the longest time without an answer, its begin
	// after the action's, and by what it was ended, or "silent" at the end.
	Gap, GapAt int
	End        string
}

// outcome tells of the time since the last forget.
func (p *path) outcome(now time.Time) Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := Outcome{Path: p.name, Tries: len(p.tries)}
	lastRight := time.Time{}
	lastWrong := time.Time{}
	for _, t := range p.tries {
		if t.err == nil {
			if t.at.After(lastRight) {
				lastRight = t.at
			}
			continue
		}
		since := int(t.at.Sub(p.begin) / time.Millisecond)
		if o.Lost == 0 || since < o.First {
			o.First = since
		}
		if t.at.After(lastWrong) {
			lastWrong, o.Last, o.Why = t.at, since, shortError(t.err)
		}
		o.Lost++
	}
	o.Broken = lastWrong.After(lastRight)
	o.Gap, o.GapAt = int(p.gap/time.Millisecond), int(p.gapAt.Sub(p.begin)/time.Millisecond)
	if silence := now.Sub(p.last); p.connection != nil && p.broken == nil && silence > p.gap {
		o.Gap, o.GapAt = int(silence/time.Millisecond), int(p.last.Sub(p.begin)/time.Millisecond)
		if silence > 2*time.Second {
			o.End = "silent"
		}
	}
	if p.broken != nil {
		o.End = shortError(p.broken)
	}
	return o
}

// right reports whether nothing was wrong with new connections since a time, and
// whether any was right.
func (p *path) right(since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	some := false
	for _, t := range p.tries {
		if t.at.Before(since) {
			continue
		}
		if t.err != nil {
			return false
		}
		some = true
	}
	return some
}

// shortError is the cause without addresses.
func shortError(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer"
	}
	var code unix.Errno
	if errors.As(err, &code) {
		return code.Error()
	}
	return err.Error()
}
