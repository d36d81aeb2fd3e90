package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// waits are how long policies take to be in force.
type waits struct {
	one, burst   sample // from ADD's return until the pod is open
	ended, churn sample // from a change until a connection is answered no more; the same while other pods come and go
}

func (b *bench) waitForPolicies(ctx context.Context, programs string) (*waits, error) {
	w := &waits{}
	node, err := newPoliced(programs, 1000)
	defer func() { node.lab.Close() }()
	if err != nil {
		return nil, err
	}
	if _, err := pace.Await(pace.Far(), func() error {
		text, err := os.ReadFile(node.node.Directory + "/policies.json")
		if err == nil && !strings.Contains(string(text), space) {
			err = errors.New("the plugin is not told whose pods begin closed")
		}
		return err
	}); err != nil {
		return nil, err
	}
	n := b.amount.opened
	var pods []*cluster.Pod
	var text strings.Builder
	for i := range n {
		pods = append(pods, node.node.Prepare(space, fmt.Sprintf("pod%d", i)))
		text.WriteString("---\n" + described(pods[i].Name, "friend"))
	}
	if err := node.write("pods", text.String()); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	alone := n / 4
	for i := range alone {
		s, err := node.opens(pods[i:i+1], 1)
		if err != nil {
			return nil, err
		}
		w.one = append(w.one, s...)
	}
	for _, p := range pods[:alone] {
		p.Delete()
	}
	time.Sleep(settle)
	if w.burst, err = node.opens(pods, b.amount.atOnce); err != nil {
		return nil, err
	}
	server := pods[0]
	stop, err := echo(server.Namespace)
	if err != nil {
		return nil, err
	}
	defer stop()
	client, err := node.pod("client", "friend")
	if err != nil {
		return nil, err
	}
	for i := range 2 * b.amount.forbidden {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		took, err := node.ends(client, server, i%2 == 1)
		if err != nil {
			return nil, err
		}
		if i%2 == 1 {
			w.churn = append(w.churn, took)
		} else {
			w.ended = append(w.ended, took)
		}
	}
	return w, nil
}

// opens attaches pods, so many at a time, and returns how long after ADD's return each
// was closed, to a millisecond.
func (p *policed) opens(pods []*cluster.Pod, atOnce int) (sample, error) {
	done, looked := make(chan struct{}), make(chan error, 1)
	var mu sync.Mutex
	returned, opened := map[netip.Addr]time.Time{}, map[netip.Addr]time.Time{}
	go func() {
		looked <- p.node.Do(func() error {
			var table closed.Table
			for {
				begin := time.Now()
				still, err := table.Addresses()
				if err != nil {
					return err
				}
				mu.Lock()
				for a, at := range returned {
					if _, is := opened[a]; !is && begin.After(at) && !slices.Contains(still, a) {
						opened[a] = begin
					}
				}
				all := len(opened) == len(pods)
				mu.Unlock()
				select {
				case <-done:
					return nil
				case <-time.After(time.Millisecond):
				}
				if all {
					return nil
				}
			}
		})
	}()
	queue, errs := make(chan *cluster.Pod, len(pods)), make([]error, atOnce)
	for _, one := range pods {
		queue <- one
	}
	close(queue)
	var workers sync.WaitGroup
	for i := range errs {
		workers.Go(func() {
			for one := range queue {
				if errs[i] = one.Add(); errs[i] != nil {
					return
				}
				mu.Lock()
				returned[one.Address(false)] = time.Now()
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		close(done)
		return nil, errors.Join(err, <-looked)
	}
	select {
	case err := <-looked:
		if err != nil {
			return nil, err
		}
	case <-time.After(pace.Far()):
		close(done)
		return nil, errors.Join(errors.New("pods stay closed"), <-looked)
	}
	var s sample
	for a, at := range opened {
		s = append(s, at.Sub(returned[a]))
	}
	return s, nil
}

// echoPort is that of echo.
const echoPort = 7

// echo answers lines with themselves.
func echo(at *netlab.Namespace) (stop func(), err error) {
	var l net.Listener
	err = at.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprint(":", echoPort))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening in %s: %w", at.Name, err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					if _, err := fmt.Fprintln(c, lines.Text()); err != nil {
						return
					}
				}
			}()
		}
	}()
	return func() { l.Close() }, nil
}

// ends forbids a connection by a label, and returns how long it was answered after that.
// With churn other pods come and go meanwhile.
func (p *policed) ends(from, to *cluster.Pod, churn bool) (time.Duration, error) {
	if err := p.write(from.Name, described(from.Name, "friend")); err != nil {
		return 0, err
	}
	var c net.Conn
	_, err := pace.Await(pace.Far(), func() error {
		return from.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", netip.AddrPortFrom(to.Address(false), echoPort).String(), time.Second)
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	stop := make(chan struct{})
	var crowding sync.WaitGroup
	defer crowding.Wait()
	defer close(stop)
	if churn {
		crowding.Go(func() {
			for i := 0; ; i++ {
				const interval = 30 * time.Millisecond
				select {
				case <-stop:
					return
				case <-time.After(interval):
				}
				o := strings.Replace(described("passer-by", "friend"), "phase: Pending", fmt.Sprintf("phase: Running, podIPs: [{ip: 10.244.9.%d}]", 1+i%200), 1)
				_ = p.write("passer-by", o) // what is not written is no change
			}
		})
	}
	answers := bufio.NewReader(c)
	say := func(patience time.Duration) error {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c, "still?"); err != nil {
			return err
		}
		_, err := answers.ReadString('\n')
		return err
	}
	if err := say(pace.Far()); err != nil {
		return 0, fmt.Errorf("talking to %s: %w", to.Name, err)
	}
	const rest = 300 * time.Millisecond // what the last change had for a consequence is over
	time.Sleep(rest)
	begin := time.Now()
	if err := p.write(from.Name, described(from.Name, "foe")); err != nil {
		return 0, err
	}
	const silence, between, longest = time.Second, 2 * time.Millisecond, 20 * time.Second
	last := begin
	for say(silence) == nil {
		if last = time.Now(); last.Sub(begin) > longest {
			return longest, nil
		}
		time.Sleep(between)
	}
	return last.Sub(begin), nil
}

func (w *waits) ratios() []ratio {
	const median, worst, end = 20 * time.Millisecond, 200 * time.Millisecond, time.Second
	n := len(w.burst)
	return []ratio{
		within("from ADD's return to open, one pod: median", w.one.median(), median),
		within("one pod: worst", w.one.quantile(1), worst),
		within(fmt.Sprintf("from ADD's return to open, %d at once: median", n), w.burst.median(), median),
		within(fmt.Sprintf("%d at once: worst", n), w.burst.quantile(1), worst),
		within("a connection that a change forbids ends: worst", w.ended.quantile(1), end),
		within("a connection that a change forbids ends, while pods come and go: worst", w.churn.quantile(1), end),
	}
}
