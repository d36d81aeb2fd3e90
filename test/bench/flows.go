package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// measureFlows measures what the fast path costs who begins a flow, and whether many flows
// that are remembered, or to be decided anew, cost a flow anything.
func measureFlows(ctx context.Context, b *bench) (section, error) {
	begun, err := b.beginFlows(ctx)
	if err != nil || len(begun) == 0 {
		return section{}, err
	}
	crowded, held, err := b.crowdFlows(ctx)
	if err != nil {
		return section{}, err
	}
	return section{
		table: crowdedTable(crowded),
		ratios: append(append([]ratio{firstPackets(begun)}, crowdedRatios(crowded)...),
			notMore("maps of the programs, for 100,000 flows", held, 30)),
	}, nil
}

// beginFlows opens connections between two pods of a node, with the fast path and without,
// in turn.
func (b *bench) beginFlows(ctx context.Context) ([]*openings, error) {
	s := &paths{bench: b, where: sameNode}
	defer s.close()
	var all []*openings
	for _, name := range []string{"ebpf", "kernel"} {
		p, err := s.flatnet(name, "--datapath", name)(ctx)
		if errors.Is(err, errNotThere) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		asker, err := b.startAsking(s.labs[len(s.labs)-1], p.from, p.to)
		if err != nil {
			return nil, err
		}
		all = append(all, &openings{asker: asker, to: netip.AddrPortFrom(p.ipv4, endpointPort)})
	}
	return all, b.openInTurn(ctx, rand.New(rand.NewPCG(70, 70)), all)
}

// firstPackets compares whole connections of one byte there and back, with the fast path
// and without.
func firstPackets(all []*openings) ratio {
	const limit = 1.05
	var quotients rates
	for i := range min(len(all[0].took), len(all[1].took)) {
		quotients = append(quotients, float64(all[0].took[i].median())/float64(all[1].took[i].median()))
	}
	return ratio{
		what: "a new connection and its end, with / without the fast path", target: fmt.Sprintf("≤ %g", limit),
		shown: figure(quotients.median()), met: quotients.median() <= limit,
	}
}

// flowCrowd is a node with flows that are remembered beside the one that is measured.
type flowCrowd struct {
	flows  int
	while  string // what happens meanwhile, for the tables
	path   path
	routes *netlab.Namespace // where a route changes again and again meanwhile; nil nowhere

	rates      [2]rates // of crowdLoads
	remembered rates
	raised     rates // a second
}

// crowdLoads are what is measured beside many flows.
var crowdLoads = []measurement{measurements[1], measurements[3]}

func (c *flowCrowd) String() string { return thousands(c.flows) + " flows" + c.while }

// crowdFlows measures one flow beside few others, beside many, and while all are decided
// anew, and what the maps for them hold.
func (b *bench) crowdFlows(ctx context.Context) (all []*flowCrowd, held memory, err error) {
	s := &paths{bench: b, where: sameNode}
	defer s.close()
	all = []*flowCrowd{
		{flows: 10}, {flows: b.amount.flows},
		{flows: b.amount.flows / 10, while: ", while routes change elsewhere"},
		{flows: b.amount.flows / 10, while: ", decided anew all the time"},
	}
	for _, c := range all {
		if c.path, err = s.flatnet(withFlatnet, "--datapath", "ebpf")(ctx); err != nil {
			return nil, 0, err
		}
	}
	// Whoever changes routes keeps the machine busy, wherever they are.
	all[2].routes, all[3].routes = s.lab().Pod("elsewhere"), all[3].path.nodes[0].Namespace
	dice := rand.New(rand.NewPCG(70, 70))
	for range b.amount.pathRounds {
		for _, which := range dice.Perm(len(all)) {
			if err := all[which].round(ctx, b); err != nil {
				return nil, 0, fmt.Errorf("%s: %w", all[which], err)
			}
		}
	}
	held, err = mapMemory()
	return all, held, err
}

// round has the flows remembered, and measures.
func (c *flowCrowd) round(ctx context.Context, b *bench) error {
	if err := remember(c.path, c.flows); err != nil {
		return err
	}
	node := c.path.nodes[0]
	before, err := node.TryStatus()
	if err != nil {
		return err
	}
	c.remembered = append(c.remembered, float64(before.FastPath.Flows))
	begin := time.Now()
	disturbed, stop := context.WithCancel(ctx)
	defer stop()
	disturbing := make(chan error, 1)
	if c.routes != nil {
		go func() { disturbing <- changeRoutes(disturbed, c.routes) }()
	} else {
		disturbing <- nil
	}
	for i, m := range crowdLoads {
		var rate float64
		if rate, err = b.rate(ctx, m.kind, c.path, c.path.ipv4); err != nil {
			break
		}
		c.rates[i] = append(c.rates[i], rate)
	}
	stop()
	if err := errors.Join(err, <-disturbing); err != nil {
		return err
	}
	took := time.Since(begin)
	after, err := node.TryStatus()
	c.raised = append(c.raised, float64(after.FastPath.Raised-before.FastPath.Raised)/took.Seconds())
	return err
}

// remember has as many flows of UDP remembered between the ends of a path: both have to
// send for that, and who has begun once more.
func remember(p path, flows int) error {
	const first, most = 20_000, 100
	ports := min(flows, most)
	open := func(at *netlab.Namespace, address netip.AddrPort) (c *net.UDPConn, err error) {
		err = at.Do(func() error {
			socket, err := (&net.ListenConfig{Control: netlab.Buffered}).ListenPacket(context.Background(), "udp4", address.String())
			if err == nil {
				c = socket.(*net.UDPConn)
			}
			return err
		})
		return c, err
	}
	for i := range ports {
		c, err := open(p.to, netip.AddrPortFrom(p.ipv4, uint16(first+i)))
		if err != nil {
			return err
		}
		defer c.Close()
		go func() {
			buffer := make([]byte, 8)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buffer)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = c.WriteToUDPAddrPort(buffer[:n], from)
				}
			}
		}()
	}
	for i := range flows / ports {
		c, err := open(p.from, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(first+i)))
		if err != nil {
			return err
		}
		err = rememberOf(c, netip.AddrPortFrom(p.ipv4, first), ports)
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// rememberOf has the flows of one socket remembered, to ports from one on.
func rememberOf(c *net.UDPConn, to netip.AddrPort, ports int) error {
	buffer := make([]byte, 8)
	for range 2 {
		for i := range ports {
			if _, err := c.WriteToUDPAddrPort(buffer[:1], netip.AddrPortFrom(to.Addr(), to.Port()+uint16(i))); err != nil {
				return err
			}
		}
		// An answer that does not come is a flow less, which the table shows.
		const patience = time.Second
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		for range ports {
			if _, _, err := c.ReadFromUDPAddrPort(buffer); err != nil {
				break
			}
		}
	}
	return nil
}

// changeRoutes changes a route that nobody uses, until ctx ends.
func changeRoutes(ctx context.Context, at *netlab.Namespace) error {
	const every = 25 * time.Millisecond
	route := netlink.Route{Dst: &net.IPNet{IP: net.IPv4(203, 0, 113, 1), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_UNREACHABLE}
	there := false
	for tick := time.NewTicker(every); ; {
		var err error
		if there {
			err = at.Netlink().RouteDel(&route)
		} else {
			err = at.Netlink().RouteAdd(&route)
		}
		if err != nil {
			return fmt.Errorf("changing a route: %w", err)
		}
		there = !there
		select {
		case <-ctx.Done():
			if there {
				return at.Netlink().RouteDel(&route)
			}
			return nil
		case <-tick.C:
		}
	}
}

func crowdedTable(all []*flowCrowd) table {
	t := table{head: []string{"one flow beside others, median (least–most)"}}
	for _, m := range crowdLoads {
		t.head = append(t.head, m.title+", "+m.unit)
	}
	t.head = append(t.head, "flows remembered", "decided anew, a second")
	for _, c := range all {
		row := []string{c.String()}
		for i, m := range crowdLoads {
			row = append(row, c.rates[i].shown(m.show))
		}
		t.rows = append(t.rows, append(row, fmt.Sprintf("%.0f", c.remembered.median()), c.raised.String()))
	}
	return t
}

func crowdedRatios(all []*flowCrowd) (ratios []ratio) {
	const limit = 0.97
	for i, m := range crowdLoads {
		quotients := all[1].rates[i].over(all[0].rates[i])
		ratios = append(ratios, ratio{
			what: fmt.Sprintf("%s, %s / %s", m.title, all[1], all[0]), target: fmt.Sprintf("≥ %g", limit),
			shown: quotients.String(), met: quotients.median() >= limit,
		})
	}
	for i, m := range crowdLoads {
		ratios = append(ratios, costOfDeciding(m, all[3].flows, all[3].rates[i].over(all[2].rates[i]), all[3].raised))
	}
	return ratios
}

// costOfDeciding is the time that a flow loses whenever all is decided anew, from its speed
// where that is all the time, in proportion to where it never is.
func costOfDeciding(m measurement, flows int, quotients, raised rates) ratio {
	const most = 1. // ms; of one change a second nobody measures that
	var lost rates
	for i := range min(len(quotients), len(raised)) {
		lost = append(lost, (1-quotients[i])/raised[i]*1000)
	}
	return ratio{
		what: fmt.Sprintf("%s: what a flow beside %s loses when they are decided anew, ms", m.title, thousands(flows)), target: fmt.Sprintf("≤ %g", most),
		shown: lost.String(), met: lost.median() <= most,
	}
}

// mapMemory is what the maps of one flatnetd hold.
func mapMemory() (memory, error) {
	held := map[string]uint64{"flows": 0, "roads": 0, "counted": 0, "setting": 0}
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("listing maps: %w", err)
		}
		id = next
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue // it is gone
		}
		info, err := m.Info()
		m.Close()
		if err != nil {
			continue
		}
		if _, ours := held[info.Name]; ours {
			bytes, _ := info.Memlock()
			held[info.Name] = max(held[info.Name], bytes)
		}
	}
	var all memory
	for _, bytes := range held {
		all += memory(bytes)
	}
	return all, nil
}
