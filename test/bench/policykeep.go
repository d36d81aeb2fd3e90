package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/policy"
	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/bench/crowd"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// kept is what it takes to keep the policies of a cluster: by a controller in this
// process, which is told all at once, and by a flatnetd with an API server.
type kept struct {
	crowd       crowd.Crowd
	first       sample // from all that there is to know to the kernel's table
	pod, policy sample // from an event to the kernel
	podCPU      time.Duration
	policyCPU   time.Duration
	heap        memory
	rules       int

	api              sample // from the API server's event of a pod to the kernel
	without, resting memory // of flatnetd, without --policies and with
	most             memory
	sent, sentForPod memory // by the API server: until all is known, and for a pod that changes elsewhere
}

func (b *bench) keepPolicies(ctx context.Context) (all []*kept, err error) {
	for _, c := range b.amount.crowds {
		k := &kept{crowd: c}
		all = append(all, k)
		for range b.amount.firstSyncs {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := k.alone(b.amount.policyChanges); err != nil {
				return nil, err
			}
		}
		if c.Here == b.amount.crowds[0].Here {
			if err := k.byFlatnetd(b, b.amount.policyChanges); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// heap is what is in use.
func heap() memory {
	runtime.GC()
	runtime.GC() // the first one may have been under way
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory(m.HeapAlloc)
}

// alone measures a controller of its own. The first time it measures changes as well.
func (k *kept) alone(times int) (err error) {
	lab := netlab.New()
	defer lab.Close()
	space := lab.Namespace("node")
	before := heap()
	keeping := k.crowd.Keep(space)
	defer func() { err = errors.Join(err, keeping.Close()) }()
	took, err := func() (time.Duration, error) { // the batch goes with it
		all, err := k.crowd.Batch()
		if err != nil {
			return 0, err
		}
		runtime.GC()
		return keeping.Tell(all)
	}()
	if err != nil {
		return err
	}
	k.first = append(k.first, took)
	if len(k.first) > 1 {
		return nil
	}
	k.heap = heap() - before
	if k.rules, err = (tables{space}).count(unix.NFT_MSG_GETRULE); err != nil {
		return err
	}
	k.pod, k.podCPU, err = inTime(keeping, times, func(n int) (policy.Batch, error) { return k.crowd.MorePod(n), nil })
	if err != nil {
		return err
	}
	k.policy, k.policyCPU, err = inTime(keeping, times, func(n int) (policy.Batch, error) { return k.crowd.Changed(n + 1) })
	return err
}

// inTime tells of changes, one after the other has come to rest, and returns how long
// each took, and how much of a CPU it took on average.
func inTime(keeping *crowd.Keeping, times int, change func(int) (policy.Batch, error)) (s sample, cpu time.Duration, err error) {
	dice := rand.New(rand.NewPCG(70, 70))
	for n := range times {
		all, err := change(n)
		if err != nil {
			return nil, 0, err
		}
		const rest = 200 * time.Millisecond
		time.Sleep(rest)
		pause(dice)
		before := processorTime()
		took, err := keeping.Tell(all)
		if err != nil {
			return nil, 0, err
		}
		cpu += processorTime() - before
		s = append(s, took)
	}
	return s, cpu / time.Duration(max(1, times)), nil
}

// processorTime is this process's, exactly.
func processorTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// byFlatnetd measures the real one, with pods that are attached, and with an API server.
func (k *kept) byFlatnetd(b *bench, times int) error {
	programs, err := filepath.Abs(b.ours)
	if err != nil {
		return err
	}
	lab := netlab.New()
	defer lab.Close()
	c := cluster.New(lab, programs)
	c.OneSegment(cluster.IPv4, 1)
	c.Start()
	n := c.Nodes[0]
	server, kubeconfig, sent, err := k.serve(lab, n)
	if err != nil {
		return err
	}
	for i := range k.crowd.Here {
		o := k.crowd.Pod(i)
		p := n.Prepare(o.Namespace, o.Name)
		p.UID = string(o.UID)
		if err := p.Add(); err != nil {
			return err
		}
	}
	time.Sleep(settle)
	if k.without, _, err = memoryOf(n.Pid()); err != nil {
		return err
	}
	watched, err := (tables{n.Namespace}).changes()
	if err != nil {
		return err
	}
	defer watched.close()
	n.Restart("--kubeconfig", kubeconfig, "--policies", "--policies-file", filepath.Join(n.Directory, "policies.json"))
	n.WaitReady()
	const patience = time.Minute
	dice := rand.New(rand.NewPCG(70, 70))
	tell := func(i int) (time.Duration, error) {
		o := k.crowd.Pod(k.crowd.Pods + i)
		if err := watched.forget(); err != nil {
			return 0, err
		}
		begin := time.Now()
		server.Put(o)
		at, err := watched.await(netip.MustParseAddr(o.Status.PodIP), patience)
		return at.Sub(begin), err
	}
	// Before everybody else, as in [crowd.Crowd.Keep].
	defer favour(os.Getpid(), true)()
	favour(n.Pid(), true)
	// The first one tells that everything is there.
	for i := range times + 1 {
		took, err := tell(i)
		if err != nil {
			return err
		}
		if i == 0 {
			k.sent = memory(sent.Load())
		} else {
			k.api = append(k.api, took)
		}
		const rest = 200 * time.Millisecond
		time.Sleep(rest)
		pause(dice)
	}
	k.sentForPod = (memory(sent.Load()) - k.sent) / memory(max(1, times))
	time.Sleep(settle)
	k.resting, k.most, err = memoryOf(n.Pid())
	return err
}

// favour has a process's threads run before everybody else, or no longer; where that
// takes rights that are missing it is left out. The result undoes it.
func favour(pid int, is bool) (undo func()) {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr}
	if is {
		attr.Policy, attr.Priority = unix.SCHED_FIFO, 1
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, t := range threads {
		if tid, err := strconv.Atoi(filepath.Base(t)); err == nil {
			_ = unix.SchedSetAttr(tid, attr, 0)
		}
	}
	return func() { favour(pid, false) }
}

// serve starts an API server on the node that knows the cluster. It counts what it sends.
func (k *kept) serve(lab *netlab.Lab, n *cluster.Node) (*apiserver.Server, string, *atomic.Int64, error) {
	server := apiserver.New()
	server.Streams, server.Protobuf = true, true
	for i := range k.crowd.Namespaces {
		server.Put(k.crowd.Namespace(i))
	}
	for i := range k.crowd.Policies {
		server.Put(k.crowd.Policy(i, 0))
	}
	for i := range k.crowd.Pods {
		server.Put(k.crowd.Pod(i))
	}
	server.Compact()
	var listener net.Listener
	err := n.Do(func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return nil, "", nil, fmt.Errorf("listening as an API server: %w", err)
	}
	sent := &atomic.Int64{}
	server.Serve(counting{listener, sent})
	lab.OnClose(func() error { server.Stop(); return nil })
	kubeconfig := filepath.Join(n.Directory, "kubeconfig")
	return server, kubeconfig, sent, apiserver.WriteKubeconfig(kubeconfig, listener.Addr().String())
}

func keptTable(all []*kept) table {
	t := table{head: []string{
		"cluster", "first sync, ms", "a pod elsewhere, ms", "least", "p90", "its CPU, ms", "a policy changed, ms", "least", "p90", "its CPU, ms", "heap, MB", "rules",
		"flatnetd: a pod elsewhere, ms", "MB without --policies", "with", "most", "sent to it at its start, MB", "for a pod elsewhere, kB",
	}}
	for _, k := range all {
		row := []string{
			k.crowd.String(), milliseconds(k.first.median()),
			milliseconds(k.pod.median()), milliseconds(k.pod.quantile(0)), milliseconds(k.pod.quantile(0.9)), milliseconds(k.podCPU),
			milliseconds(k.policy.median()), milliseconds(k.policy.quantile(0)), milliseconds(k.policy.quantile(0.9)), milliseconds(k.policyCPU),
			k.heap.String(), thousands(k.rules), "", "", "", "", "", "",
		}
		if len(k.api) > 0 {
			copy(row[12:], []string{milliseconds(k.api.median()), k.without.String(), k.resting.String(), k.most.String(), k.sent.String(), fmt.Sprintf("%.2f", float64(k.sentForPod)/1000)})
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func keptRatios(all []*kept) (ratios []ratio) {
	for _, k := range all {
		what := k.crowd.String() + ": "
		large := k.crowd.Pods > all[0].crowd.Pods
		mostMemory := 60.0
		if large {
			mostMemory = 200
		}
		first, policyChange := within(what+"first sync", k.first.median(), 2*time.Second), within(what+"a policy changed", k.policy.median(), 20*time.Millisecond)
		if large { // these are for the smaller one
			first.target, policyChange.target = "", ""
		}
		ratios = append(ratios, first, within(what+"a pod elsewhere", k.pod.median(), 5*time.Millisecond), policyChange, notMore(what+"heap", k.heap, mostMemory))
		if len(k.api) > 0 {
			ratios = append(ratios,
				within(what+"flatnetd, a pod elsewhere from the API server's event", k.api.median(), 5*time.Millisecond),
				notMore(what+"flatnetd, memory more than without", k.resting-k.without, mostMemory))
		}
		if large && k.crowd.Here == all[0].crowd.Here {
			ratios = append(ratios, ratio{
				what:  fmt.Sprintf("rules with %d and with %d pods", k.crowd.Pods, all[0].crowd.Pods),
				shown: fmt.Sprintf("%s / %s", thousands(k.rules), thousands(all[0].rules)), target: "the same", met: k.rules == all[0].rules,
			})
		}
	}
	return ratios
}
