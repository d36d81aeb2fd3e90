package scenarios

import (
	"errors"
	"fmt"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

const (
	pingInterval = time.Millisecond
	// patience is how long an answer may take: on a busy machine it may be late,
	// which is not lost.
	patience = 10 * time.Second
	// tooFew is the mean time between requests above which the machine was too
	// busy for the pings to say anything.
	tooFew = 20 * pingInterval
)

// pings are exchanges between the pod of one node and those of all others, in
// each family, every millisecond.
type pings struct {
	begin time.Time
	all   []pinging
	ended bool
}

type pinging struct {
	from, to pod
	family   int
	*netlab.Ping
}

// ping starts pings from the pod of a node, in its network namespace. What they
// came to is what stop returns; they end with the scenario.
func (r *Run) ping(node string) (*pings, error) {
	from, err := r.testPod(node)
	if err != nil {
		return nil, err
	}
	others, err := r.testPods(false)
	if err != nil {
		return nil, err
	}
	path, err := r.Lab.PodNamespace(from.Node, from.Namespace, from.Name)
	if err != nil {
		return nil, err
	}
	namespace, err := netlab.Open("of pod "+from.Name, path)
	if err != nil {
		return nil, err
	}
	defer namespace.Close() // sockets stay
	p := &pings{begin: time.Now()}
	r.after(func() error {
		if !p.ended {
			p.stop(0) // the scenario has failed with something else
		}
		return nil
	})
	for _, to := range others {
		if to.Node == node {
			continue
		}
		for family, address := range to.Addresses {
			one, err := namespace.Ping(address, pingInterval)
			if err != nil {
				return nil, err
			}
			p.all = append(p.all, pinging{from, to, family, one})
		}
	}
	return p, nil
}

// stop ends the pings, and fails if an answer is missing after so long. It says
// what they came to.
func (p *pings) stop(wait time.Duration) (string, error) {
	p.ended = true
	took := time.Since(p.begin)
	var errs []error
	var sum netlab.Echoes
	for _, one := range p.all {
		e, err := one.Stop(wait)
		name := fmt.Sprintf("%s (%s) to %s (%s)", one.from.Addresses[one.family], one.from.Node, one.to.Addresses[one.family], one.to.Node)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		case e.Lost() > 0:
			errs = append(errs, fmt.Errorf("%s: %d of %d pings lost", name, e.Lost(), e.Sent))
		case time.Duration(e.Sent) < took/tooFew:
			errs = append(errs, fmt.Errorf("%s: only %d pings in %s, so they say nothing", name, e.Sent, took))
		}
		sum.Sent += e.Sent
		sum.Answered += e.Answered
		sum.Slowest = max(sum.Slowest, e.Slowest)
	}
	return fmt.Sprintf("%d pings, %d lost, slowest %d ms", sum.Sent, sum.Lost(), sum.Slowest.Milliseconds()), errors.Join(errs...)
}
