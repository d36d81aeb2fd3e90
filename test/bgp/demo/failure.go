package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/racks"
)

const (
	// patience is how long an answer may take.
	patience = 5 * time.Second
	// interval is the time between two requests of a pair.
	interval = 10 * time.Millisecond
	// before and after are requests of each pair around what happens.
	before, after = 100, 100
)

// flows are pings between all pods of different racks, in both families: enough for both
// routers to have some of them.
type flows []*netlab.Ping

func (d *demo) startFlows() (all flows, err error) {
	for _, from := range d.pods[:podsOfNode] {
		for _, to := range d.pods[podsOfNode:] {
			for _, ipv6 := range []bool{false, true} {
				p, err := from.Namespace.Ping(to.Address(ipv6), interval)
				if err != nil {
					_, _, err2 := all.stop()
					return nil, errors.Join(err, err2)
				}
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// send waits until each has sent some more requests.
func (f flows) send(ctx context.Context, more int) error {
	var enough []int
	for _, p := range f {
		e, _ := p.Echoes() // an error stays, and is seen below
		enough = append(enough, e.Sent+more)
	}
	for i, p := range f {
		for {
			e, err := p.Echoes()
			if err := errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			if e.Sent >= enough[i] {
				break
			}
			time.Sleep(interval)
		}
	}
	return nil
}

// stop returns how many requests were sent, and how many of each pair were lost. All are
// waited for at once: each that has lost one takes all its patience.
func (f flows) stop() (sent int, lost []int, err error) {
	ends, failures := make([]netlab.Echoes, len(f)), make([]error, len(f))
	var all sync.WaitGroup
	for i, p := range f {
		all.Go(func() { ends[i], failures[i] = p.Stop(pace.Of(patience)) })
	}
	all.Wait()
	for _, e := range ends {
		sent += e.Sent
		lost = append(lost, e.Lost())
	}
	return sent, lost, errors.Join(failures...)
}

// loseRouter takes a router's machine away, while pods talk.
func (d *demo) loseRouter(ctx context.Context) error {
	f, err := d.startFlows()
	if err != nil {
		return err
	}
	if err := f.send(ctx, before); err != nil {
		return errors.Join(err, stopAll(f))
	}
	begin := time.Now()
	if err := d.racks.A1.Freeze(true); err != nil {
		return errors.Join(err, stopAll(f))
	}
	if err := d.links(d.racks.A1, "down"); err != nil {
		return errors.Join(err, stopAll(f))
	}
	if err := d.joined(ctx, d.racks.N1, 1); err != nil {
		return errors.Join(err, stopAll(f))
	}
	noticed := time.Since(begin)
	// Routers of the other rack notice by themselves.
	_, err = pace.Await(pace.Far(), func() error {
		if ctx.Err() != nil {
			return nil
		}
		for _, one := range []struct {
			router      *racks.Router
			ask, hasWay string
		}{
			{d.racks.B1, "show route table master4 10.244.1.0/24", "via 172.31.0.1 "},
			{d.racks.B2, "show bgp ipv4 unicast 10.244.1.0/24", "from 172.31.0.1 "},
		} {
			if text, err := one.router.Ask(one.ask); err != nil || strings.Contains(text, one.hasWay) {
				return errors.Join(fmt.Errorf("%s still has a way by a1: %s", one.router.Name, text), err)
			}
		}
		return nil
	})
	if err == nil {
		err = f.send(ctx, after)
	}
	sent, lost, failure := f.stop()
	if err = errors.Join(err, failure); err != nil {
		return err
	}
	whole, most := 0, 0
	for _, n := range lost {
		if n == 0 {
			whole++
		}
		most = max(most, n)
	}
	d.Heading("A router's machine dies")
	d.Text(fmt.Sprintf("%d pairs of pods ping each other every %d ms, in both families, when a1 stops and all of\nits links go down. Nobody is told: n1 misses its keepalives for the hold time of 3 s, other routers\nfor theirs of 9 s.",
		len(lost)/2, interval.Milliseconds()))
	d.Table([][]string{
		{"sent", "flows", "that lost nothing", "the longest silence of any", "n1 has one router after"},
		{fmt.Sprint(sent), fmt.Sprint(len(lost)), fmt.Sprint(whole), fmt.Sprintf("%.1f s", (time.Duration(most) * interval).Seconds()), fmt.Sprintf("%.1f s", noticed.Seconds())},
	})
	if err := d.shown(d.racks.N1.Namespace, "n1", "ip", "route", "show", "proto", "70", "10.244.2.0/24"); err != nil {
		return err
	}
	d.summary = append(d.summary, fmt.Sprintf("a router dies: %d of %d flows lose nothing, the others %.1f s at most, hold time 3 s to 9 s", whole, len(lost), (time.Duration(most)*interval).Seconds()))
	if err := errors.Join(d.links(d.racks.A1, "up"), d.racks.A1.Freeze(false)); err != nil {
		return err
	}
	return d.joined(ctx, d.racks.N1, 2)
}

// links takes all links of a router up or down.
func (d *demo) links(r *racks.Router, state string) error {
	for _, link := range []string{"eth0", "eth1"} {
		if _, err := r.Output("ip", "link", "set", link, state); err != nil {
			return err
		}
	}
	return nil
}

func stopAll(f flows) error {
	_, _, err := f.stop()
	return err
}

// restartAgent kills a node's flatnetd and starts another one, while pods talk.
func (d *demo) restartAgent(ctx context.Context) error {
	f, err := d.startFlows()
	if err != nil {
		return err
	}
	n := d.racks.N2
	err = f.send(ctx, before)
	begin := time.Now()
	if err == nil {
		n.Kill()
		_, err = pace.Await(pace.Far(), func() error {
			if ctx.Err() != nil {
				return nil
			}
			text, err := d.racks.B1.Ask("show protocols node4")
			if err == nil && strings.Contains(text, "Established") {
				err = fmt.Errorf("b1 still has the session: %s", text)
			}
			return err
		})
	}
	var ready time.Duration
	if err == nil {
		err = f.send(ctx, before)
	}
	if err == nil {
		n.StartAgain()
		ready = n.WaitReady()
		err = d.joined(ctx, n, 2)
	}
	away := time.Since(begin)
	if err == nil {
		err = f.send(ctx, after)
	}
	sent, lost, failure := f.stop()
	if err = errors.Join(err, failure); err != nil {
		return err
	}
	all := 0
	for _, n := range lost {
		all += n
	}
	d.Heading("flatnetd is killed")
	d.Text(fmt.Sprintf("The flatnetd of n2 is killed (SIGKILL) and started again, and with it flatnet-bgp: its sessions end\nwithout a word. Routers keep what it has told, for restartTime, and the kernel keeps its routes.\nIt was ready %.1f s after its start, and had all sessions and routes %.1f s after it was killed.", ready.Seconds(), away.Seconds()))
	d.Table([][]string{{"sent", "lost"}, {fmt.Sprint(sent), fmt.Sprint(all)}})
	// Where the kernel replaces a route, it may lose a packet that has just looked it up.
	if most := 2; all > most {
		return fmt.Errorf("%d packets were lost while flatnetd on n2 was killed and started", all)
	}
	d.summary = append(d.summary, fmt.Sprintf("flatnetd killed and started, %d packets sent meanwhile, %d lost", sent, all))
	return nil
}
