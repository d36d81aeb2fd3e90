package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/report"
)

// pinged is a ping from one pod to another, while flatnetd is killed.
type pinged struct {
	from, to *cluster.Pod
	family   int
	*netlab.Ping
}

// pingInterval is the time between two requests.
const pingInterval = time.Millisecond

// patience is how long an answer may take when the requests have ended; it allows for
// a machine that is busy with something else.
const patience = time.Minute

// whileItLasts is how many requests are sent before flatnetd is killed, while
// it is dead, and after it is back.
const whileItLasts = 200

// killAgent kills the flatnetd of the first node and starts another one, while
// pods talk.
func (d *demo) killAgent(ctx context.Context) error {
	pings, err := d.startPings()
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			stopAll(pings)
		}
	}()
	node := d.nodes[0]
	if err := awaitRequests(ctx, pings, whileItLasts); err != nil {
		return err
	}
	node.Kill()
	killed := time.Now()
	late, err := d.attachWithoutAgent(ctx, node)
	if err != nil {
		return fmt.Errorf("while flatnetd on %s is dead: %w", node.Name, err)
	}
	if err := awaitRequests(ctx, pings, whileItLasts); err != nil {
		return err
	}
	node.Start()
	ready := node.WaitReady()
	dead := time.Since(killed)
	if err := awaitRequests(ctx, pings, whileItLasts); err != nil {
		return err
	}
	stopped = true
	rows, sent, lost, err := summarize(pings)
	if err != nil {
		return err
	}
	d.Heading("flatnetd is killed")
	d.Text(fmt.Sprintf("Pods ping each other every millisecond while the flatnetd of %s is killed (SIGKILL) and started\n"+
		"again. It was away for %s ms, of which it took %s ms to be ready.", node.Name, report.Milliseconds(dead), report.Milliseconds(ready)))
	d.Table(rows)
	if lost > 0 {
		return fmt.Errorf("%d packets were lost while flatnetd on %s was killed and started", lost, node.Name)
	}
	d.Text(fmt.Sprintf("Nor did pods have to wait for it: meanwhile the pod late-1 was attached (%s ms), was seen by all\n"+
		"others as %s and %s, and was detached.", report.Milliseconds(late.took), late.addresses[0], late.addresses[1]))
	d.summary = append(d.summary, fmt.Sprintf("flatnetd killed and started, %d packets sent meanwhile, 0 lost", sent))
	return d.checkPeers(node)
}

// startPings starts a ping from a pod of the first node to one of each other.
func (d *demo) startPings() (pings []pinged, err error) {
	from := d.pods[0]
	for _, n := range d.nodes[1:] {
		for _, to := range d.pods {
			if to.Node != n {
				continue
			}
			for f, address := range addresses(to) {
				p, err := from.Namespace.Ping(address, pingInterval)
				if err != nil {
					stopAll(pings)
					return nil, err
				}
				pings = append(pings, pinged{from, to, f, p})
			}
			break
		}
	}
	return pings, nil
}

func stopAll(pings []pinged) {
	for _, p := range pings {
		p.Stop(patience)
	}
}

// awaitRequests waits until each of the pings has sent some more requests.
func awaitRequests(ctx context.Context, pings []pinged, more int) error {
	var enough []int
	for _, p := range pings {
		echoes, _ := p.Echoes() // an error stays, and is seen below
		enough = append(enough, echoes.Sent+more)
	}
	for i, p := range pings {
		for {
			echoes, err := p.Echoes()
			if err := errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			if echoes.Sent >= enough[i] {
				break
			}
			time.Sleep(pingInterval)
		}
	}
	return nil
}

// latePod is a pod that came and went while there was no flatnetd.
type latePod struct {
	end
	took time.Duration // of ADD
}

// attachWithoutAgent attaches a pod, has it reach the other pods and detaches it.
func (d *demo) attachWithoutAgent(ctx context.Context, n *cluster.Node) (*latePod, error) {
	pod, err := attach(n, "late-1")
	if err != nil {
		return nil, err
	}
	late := &latePod{end: *podEnd(pod), took: pod.Took}
	others := d.podEnds()
	if err := others.listen(); err != nil {
		return nil, err
	}
	defer others.close()
	if _, err := tryAll(ctx, ends{&late.end}, others); err != nil {
		return nil, err
	}
	pod.Delete()
	return late, nil
}

// summarize stops the pings and makes a table of them.
func summarize(pings []pinged) (rows [][]string, sent, lost int, err error) {
	rows = [][]string{{"from", "to", "way", "", "sent", "answered", "lost"}}
	for _, p := range pings {
		e, failure := p.Stop(patience)
		err = errors.Join(err, failure)
		sent, lost = sent+e.Sent, lost+e.Lost()
		rows = append(rows, []string{
			p.from.Name, p.to.Name, mode(p.from.Node, p.to.Node), families[p.family],
			fmt.Sprint(e.Sent), fmt.Sprint(e.Answered), fmt.Sprint(e.Lost()),
		})
	}
	return rows, sent, lost, err
}
