package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// held is what a pod is held to in a measurement.
type held struct {
	name        string
	rate, burst uint64 // bits per second, bits; the same in both directions
	windows     int    // how many times the usual time it is measured for
}

// helds are rates with a burst of 10 ms, or 32 KiB. At the lowest a few packets are
// much, so it takes longer.
var helds = []held{
	{"1 Mbit/s", 1e6, 8 * 32 << 10, 4},
	{"100 Mbit/s", 100e6, 1e6, 1},
	{"10 Gbit/s", 10e9, 100e6, 1},
}

// wireShare is how much of a full packet on the wire, with the Ethernet header that
// the kernel counts, is a connection's own: 1448 of 1514 bytes.
const wireShare = 1448.0 / 1514

// withBandwidth has a contender's pods held to what the runtime says.
func withBandwidth(c contender) contender { return withCapability(c, "bandwidth", "bandwidth") }

// throughput is what came of one direction of a pod.
type throughput struct {
	wire  rates  // bits a second, as the kernel counts them
	trips sample // of datagrams meanwhile
}

// measureBandwidth sends as much as goes to and from pods that are held to a rate,
// from and to a pod of the same node that is not.
func measureBandwidth(ctx context.Context, b *bench) (section, error) {
	s := newSite()
	defer s.Close()
	runners, err := b.runners(s, withBandwidth(b.flatnet("flatnet", single, false)), withBandwidth(b.ptp("ptp", single, false)))
	if err != nil {
		return section{}, err
	}
	t := table{head: []string{"", "asked", "connections"}}
	for _, r := range runners {
		t.head = append(t.head, r.name+", rate / asked", r.name+", round trip meanwhile, ms")
	}
	var ratios []ratio
	for _, h := range helds {
		for _, egress := range []bool{false, true} {
			for _, connections := range []int{1, 10} {
				direction := "to the pod"
				if egress {
					direction = "from the pod"
				}
				row := []string{direction, h.name, fmt.Sprint(connections)}
				var medians []float64
				found := map[string]*throughput{}
				for range b.amount.bandwidthRounds {
					for _, r := range runners {
						if found[r.name] == nil {
							found[r.name] = &throughput{}
						}
						if err := b.throughput(ctx, s, r, h, egress, connections, found[r.name]); err != nil {
							return section{}, fmt.Errorf("%s %s of %s: %w", h.name, direction, r.name, err)
						}
					}
				}
				for _, r := range runners {
					f := found[r.name]
					medians = append(medians, f.wire.median()/float64(h.rate))
					row = append(row, f.wire.shown(func(bits float64) float64 { return bits / float64(h.rate) }), milliseconds(f.trips.median()))
				}
				t.rows = append(t.rows, row)
				if len(medians) == 2 {
					ratios = append(ratios, ratio{
						what:  fmt.Sprintf("rate %s, %s, %d connections, flatnet / ptp + bandwidth", direction, h.name, connections),
						shown: figure(medians[0] / medians[1]), target: "within 5 % of the rate, or of ptp + bandwidth's where that stays below it",
						met: medians[0] <= 1.05 && medians[0] >= 0.95*math.Min(1, medians[1]),
					})
				}
			}
		}
	}
	return section{table: t, ratios: ratios}, nil
}

// throughput measures one direction of a new pod once.
func (b *bench) throughput(ctx context.Context, s *site, r *runner, h held, egress bool, connections int, to *throughput) (err error) {
	podSpace, peerSpace := s.Pod(fmt.Sprint(s.pods)), s.Pod(fmt.Sprint(s.pods+1))
	s.pods += 2
	r.bandwidth = map[string]any{"ingressRate": h.rate, "ingressBurst": h.burst, "egressRate": h.rate, "egressBurst": h.burst}
	shaped, free := pod{podSpace.Name, podSpace.Path}, pod{peerSpace.Name, peerSpace.Path}
	_, err = r.add(ctx, shaped)
	if err != nil {
		return err
	}
	defer func() { _, e := r.del(ctx, shaped); err = errors.Join(err, e, podSpace.Delete()) }()
	r.bandwidth = nil
	if _, err := r.add(ctx, free); err != nil {
		return err
	}
	defer func() { _, e := r.del(ctx, free); err = errors.Join(err, e, peerSpace.Delete()) }()
	from, receiver := peerSpace, podSpace
	if egress {
		from, receiver = podSpace, peerSpace
	}
	address, err := addressOf(receiver)
	if err != nil {
		return err
	}
	at, stop, err := receiver.Echo(netip.AddrPortFrom(address, 0))
	if err != nil {
		return err
	}
	defer stop()
	running, err := stream(from, receiver, address, connections)
	if err != nil {
		return err
	}
	defer running.close()
	// Until what may pass at once has passed.
	burst := time.Duration(float64(h.burst) / float64(h.rate) * float64(time.Second))
	elapse(burst + b.amount.bandwidthWindow/2)
	begin, before := time.Now(), running.received.Load()
	trips, err := trips(from, at, time.Duration(h.windows)*b.amount.bandwidthWindow)
	bytes := running.received.Load() - before
	if err != nil {
		return err
	}
	to.wire = append(to.wire, 8*float64(bytes)/wireShare/time.Since(begin).Seconds())
	to.trips = append(to.trips, trips...)
	return nil
}

// trips are how long datagrams take there and back, one after the other, for so long.
func trips(from *netlab.Namespace, to netip.AddrPort, during time.Duration) (sample, error) {
	const between, patience = 5 * time.Millisecond, 5 * time.Second
	var all sample
	for begin := time.Now(); time.Since(begin) < during; elapse(between) {
		_, trip, err := from.Ask(netip.Addr{}, to, patience)
		if err != nil {
			all = append(all, patience) // dropped: as good as that late
			continue
		}
		all = append(all, trip)
	}
	return all, nil
}

// elapse lets time pass: what is measured needs some.
func elapse(d time.Duration) { <-time.After(d) }
