package agent

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/announce"
	"github.com/flatnet-cni/flatnet/pkg/loadbalancer"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// startPatience is how long after the start it is no problem that there is no Lease yet.
const startPatience = 10 * time.Second

// addressing is what there is to know of addresses of load balancers.
type addressing struct {
	node      string
	file      error
	source    error
	lease     error // why the own Lease is not valid
	down      []string
	failure   string
	waiting   []loadbalancer.Waiting
	conflicts []announce.Conflict
}

func (b *balancers) problems() []problem.Problem {
	if !b.on() {
		return nil
	}
	s, state := b.announcer.State(), b.controller.State()
	a := addressing{node: b.config.NodeName, file: b.file.Check(), waiting: state.Waiting, down: s.Down, failure: s.Failure, conflicts: s.Conflicts}
	if state.Failure != "" {
		a.failure = state.Failure
	}
	if err := b.source.Check(); err != nil {
		a.source = err
	} else {
		a.source = b.table.Check()
	}
	if len(s.Interfaces) > 0 && !b.member.Valid() && time.Since(b.began) > startPatience {
		if a.lease = b.member.Err(); a.lease == nil {
			a.lease = errors.New("the watch of Leases does not bring the renewal")
		}
		if s.Together {
			a.lease = fmt.Errorf("%w; no other node can renew its Lease either, and all hear each other: they go on", a.lease)
		}
	}
	return a.problems()
}

func (a addressing) problems() (all []problem.Problem) {
	add := func(kind problem.Kind, f problem.Facts) {
		f.Node = a.node
		all = append(all, kind.Of(f))
	}
	line := func(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
	if a.file != nil {
		add(problem.BalancerConfig, problem.Facts{Object: "--loadbalancer-config", Reason: line(a.file)})
	}
	if a.source != nil {
		add(problem.BalancerSource, problem.Facts{Object: "source of load balancers", Reason: line(a.source), Needs: []problem.Thing{problem.API}})
	}
	if a.lease != nil {
		add(problem.AnnounceLease, problem.Facts{Object: "Lease " + announce.LeaseName(a.node), Reason: line(a.lease), Needs: []problem.Thing{problem.API}})
	}
	if a.failure != "" {
		add(problem.BalancerAddress, problem.Facts{Object: "addresses of load balancers", Reason: a.failure})
	}
	if n := len(a.waiting); n > 0 {
		add(problem.BalancerAddress, problem.Facts{Object: fmt.Sprintf("Services of type LoadBalancer without address: %d", n), Reason: fmt.Sprintf("%s: %s", a.waiting[0].Name, a.waiting[0].Reason)})
	}
	for _, down := range a.down {
		name, reason, _ := strings.Cut(down, ": ")
		add(problem.AnnounceInterface, problem.Facts{Object: "interface " + name, Reason: reason})
	}
	for _, c := range a.conflicts {
		add(problem.AnnounceConflict, problem.Facts{Object: "address " + c.IP.String(), Reason: fmt.Sprintf("somebody with the MAC address %s at %s says to have it", c.MAC, c.Interface)})
	}
	return all
}
