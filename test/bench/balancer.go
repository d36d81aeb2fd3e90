package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/bench/processor"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// balancer is an agent that balances Services, on a node of its own, with an API
// server of its own and two pods made by hand: one that connects, and one that is
// all endpoints.
type balancer struct {
	name    string
	program string // with its directory
	// arguments are the program's, on this node.
	arguments func(n *cluster.Node, kubeconfig string) ([]string, error)

	supply      *supply
	bench       *bench
	lab         *netlab.Lab
	node        *cluster.Node
	client, pod *netlab.Namespace
	server      *apiserver.Server
	kubeconfig  string
	process     *exec.Cmd
	wait        func() error
	asker       *asker
	changes     *changes
	figures     figures
	cpuBefore   time.Duration
}

// figures are what is measured of a balancer.
type figures struct {
	first                    sample // from its start to the first connection
	began, changed, most     memory
	nft                      memory // the most of one nft
	change                   sample // from the API server's event to the rule
	cpu                      time.Duration
	rules, chains            int
	connect, connectDirectly sample
}

// place makes the node.
func (b *balancer) place() error {
	b.lab = netlab.New()
	c := cluster.New(b.lab, filepath.Dir(b.program))
	b.node = c.AddNode(nodeName(1), b.lab.Segment("lan").Port("172.30.0.1/24"))
	b.client, b.pod = b.lab.Pod("client"), b.lab.Pod("endpoints")
	const mtu = 1500
	for i, pod := range []*netlab.Namespace{b.client, b.pod} {
		if _, _, err := podByHand(b.node.Namespace, pod, 1, 2+i, mtu); err != nil {
			return err
		}
	}
	err := errors.Join(
		b.node.SetSysctl("net/ipv4/ip_forward", "1"),
		commands(b.node.Namespace, fmt.Sprintf("ip route add %s via 10.244.1.3 dev veth3 onlink", supplyCIDR)),
		commands(b.pod, fmt.Sprintf("ip route add local %s dev lo", supplyCIDR)),
	)
	if err != nil {
		return err
	}
	if err := b.serveAPI(); err != nil {
		return err
	}
	return b.startPods()
}

// serveAPI starts the API server.
func (b *balancer) serveAPI() error {
	b.server = apiserver.New()
	b.server.Streams, b.server.Protobuf = true, true
	b.supply.fill(b.server)
	b.server.Compact() // what was put is in the lists
	var listener net.Listener
	err := b.node.Do(func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return fmt.Errorf("listening as an API server: %w", err)
	}
	b.server.Serve(listener)
	b.lab.OnClose(func() error { b.server.Stop(); return nil })
	b.kubeconfig = filepath.Join(b.node.Directory, "kubeconfig")
	return apiserver.WriteKubeconfig(b.kubeconfig, listener.Addr().String())
}

// startPods starts what answers, and what asks.
func (b *balancer) startPods() (err error) {
	b.asker, err = b.bench.startAsking(b.lab, b.client, b.pod)
	return err
}

// startAsking starts a program in one pod that answers at every address of it, and one
// in another that asks. Both end with the lab.
func (b *bench) startAsking(lab *netlab.Lab, client, server *netlab.Namespace) (*asker, error) {
	cpu, err := lastCPU()
	if err != nil {
		return nil, err
	}
	program := filepath.Join(b.floor, "load")
	serve := exec.Command(program, "serve", netip.AddrPortFrom(netip.IPv4Unspecified(), endpointPort).String(), fmt.Sprint(cpu))
	out, err := spawn(lab, server, serve)
	if err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, fmt.Errorf("starting what answers in %s: %q, %w", server.Name, line, err)
	}
	ask := exec.Command(program, "ask", fmt.Sprint(cpu))
	in, err := ask.StdinPipe()
	if err != nil {
		return nil, err
	}
	if out, err = spawn(lab, client, ask); err != nil {
		return nil, err
	}
	return &asker{in, bufio.NewReader(out)}, nil
}

// spawn starts a program that ends with the lab.
func spawn(lab *netlab.Lab, space *netlab.Namespace, cmd *exec.Cmd) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	cmd.Stdout, cmd.Stderr = write, os.Stderr
	wait, err := space.Start(cmd)
	write.Close()
	if err != nil {
		return nil, err
	}
	lab.OnClose(func() error {
		_ = cmd.Process.Kill() // what has ended is waited for as well
		_ = wait()
		return read.Close()
	})
	return read, nil
}

// start starts the agent with no table in the kernel, and waits until connections to
// Services are answered.
func (b *balancer) start(ctx context.Context) error {
	if err := (tables{b.node.Namespace}).empty(); err != nil {
		return err
	}
	arguments, err := b.arguments(b.node, b.kubeconfig)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(b.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(b.program, arguments...)
	cmd.Stdout, cmd.Stderr = log, log
	begin := time.Now()
	wait, err := b.node.Node.Start(cmd)
	if err != nil {
		return err
	}
	b.process, b.wait = cmd, wait
	following := followChildren(ctx, b.pid())
	took, err := b.awaitFirst(begin)
	b.figures.nft = max(b.figures.nft, following.stop())
	if err != nil {
		return b.explain(err)
	}
	b.figures.first = append(b.figures.first, took)
	time.Sleep(settle)
	return b.remember(&b.figures.began)
}

// settle is how long it takes until the runtime has given back what it has freed.
const settle = 2 * time.Second

// remember notes the memory that is used now, and the most ever.
func (b *balancer) remember(now *memory) error {
	m, most, err := memoryOf(b.pid())
	*now, b.figures.most = m, max(b.figures.most, most)
	return err
}

// awaitFirst waits until a connection to the last Service is answered, and then looks
// whether others are as well.
func (b *balancer) awaitFirst(begin time.Time) (took time.Duration, err error) {
	const patience = 5 * time.Minute
	err = b.client.Do(func() error {
		// What is sent before there are rules is lost, and would be sent
		// again only after a second.
		const attempt = 4 * time.Millisecond
		target := b.supply.front(b.supply.services - 1).String()
		for {
			conn, err := net.DialTimeout("tcp", target, attempt)
			if took = time.Since(begin); err == nil {
				return conn.Close()
			}
			if took > patience {
				return fmt.Errorf("connecting to %s: %w", target, err)
			}
			if b.ended() {
				return errors.New("it has ended")
			}
		}
	})
	if err != nil {
		return 0, err
	}
	_, err = b.asker.ask(b.fronts(rand.New(rand.NewPCG(70, 70)), 50))
	return took, err
}

// fronts are n Services by chance.
func (b *balancer) fronts(dice *rand.Rand, n int) []netip.AddrPort {
	all := make([]netip.AddrPort, n)
	for i := range all {
		all[i] = b.supply.front(dice.IntN(b.supply.services))
	}
	return all
}

// endpoints are n endpoints by chance.
func (b *balancer) endpoints(dice *rand.Rand, n int) []netip.AddrPort {
	all := make([]netip.AddrPort, n)
	for i := range all {
		all[i] = b.supply.endpoint(dice.IntN(b.supply.services), dice.IntN(b.supply.endpoints))
	}
	return all
}

func (b *balancer) pid() int { return b.process.Process.Pid }

// ended reports whether the process has ended, and nobody has waited for it.
func (b *balancer) ended() bool {
	err := b.process.Process.Signal(syscall.Signal(0))
	return errors.Is(err, os.ErrProcessDone)
}

func (b *balancer) logPath() string { return filepath.Join(b.node.Directory, "agent.log") }

// explain adds to an error what the agent has said last.
func (b *balancer) explain(err error) error {
	text, _ := os.ReadFile(b.logPath())
	const last = 2000
	return fmt.Errorf("measuring %s: %w: %s", b.name, err, text[max(0, len(text)-last):])
}

// stop ends the agent if it runs; what it has written stays.
func (b *balancer) stop() error {
	if b.process == nil {
		return nil
	}
	_ = b.process.Process.Kill() // waiting tells the rest
	_ = b.wait()
	b.process = nil
	return nil
}

// rests keeps the agent from doing anything until goOn.
func (b *balancer) rests() error { return b.process.Process.Signal(syscall.SIGSTOP) }

func (b *balancer) goOn() error { return b.process.Process.Signal(syscall.SIGCONT) }

// close removes the node.
func (b *balancer) close() error {
	if b.lab == nil {
		return nil
	}
	err := b.stop()
	if b.changes != nil {
		err = errors.Join(err, b.changes.close())
	}
	return errors.Join(err, b.lab.Close())
}

// count counts rules and chains, and begins to watch changes.
func (b *balancer) count() (err error) {
	t := tables{b.node.Namespace}
	if b.figures.rules, err = t.count(unix.NFT_MSG_GETRULE); err != nil {
		return err
	}
	if b.figures.chains, err = t.count(unix.NFT_MSG_GETCHAIN); err != nil {
		return err
	}
	if b.changes, err = t.changes(); err != nil {
		return err
	}
	b.cpuBefore, err = processor.TimeOfAll(b.pid())
	return err
}

// change replaces an endpoint by another, and waits for the rule.
func (b *balancer) change(n int) error {
	slice, fresh := b.supply.move(n)
	if err := b.changes.forget(); err != nil {
		return err
	}
	begin := time.Now()
	b.server.Put(slice)
	const patience = 3 * time.Minute // kube-proxy may take 20 s, and the machine be busy
	end, err := b.changes.await(fresh, patience)
	if err != nil {
		return b.explain(err)
	}
	b.figures.change = append(b.figures.change, end.Sub(begin))
	return nil
}

// reckon notes what the changes have cost.
func (b *balancer) reckon() error {
	after, err := processor.TimeOfAll(b.pid())
	if err != nil {
		return err
	}
	b.figures.cpu = (after - b.cpuBefore) / time.Duration(max(1, len(b.figures.change)))
	return b.remember(&b.figures.changed)
}

// connect opens connections to Services, and to endpoints.
func (b *balancer) connect(dice *rand.Rand, n int) error {
	through, err := b.asker.ask(b.fronts(dice, n))
	if err != nil {
		return b.explain(err)
	}
	directly, err := b.asker.ask(b.endpoints(dice, n))
	if err != nil {
		return b.explain(err)
	}
	b.figures.connect = append(b.figures.connect, through...)
	b.figures.connectDirectly = append(b.figures.connectDirectly, directly...)
	return nil
}

// asker is a program that opens connections.
type asker struct {
	in  interface{ Write([]byte) (int, error) }
	out *bufio.Reader
}

// ask opens a connection to each of the targets, one after the other.
func (a *asker) ask(targets []netip.AddrPort) (sample, error) {
	var line strings.Builder
	for _, t := range targets {
		fmt.Fprint(&line, t, " ")
	}
	if _, err := fmt.Fprintln(a.in, line.String()); err != nil {
		return nil, fmt.Errorf("asking for connections: %w", err)
	}
	answer, err := a.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("opening connections: %w", err)
	}
	var found sample
	for _, field := range strings.Fields(answer) {
		nanoseconds, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading how long a connection took: %w", err)
		}
		found = append(found, time.Duration(nanoseconds))
	}
	if len(found) != len(targets) {
		return nil, fmt.Errorf("%d connections were opened, and not %d", len(found), len(targets))
	}
	return found, nil
}
