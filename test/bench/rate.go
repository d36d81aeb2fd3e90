package main

import (
	"bufio"
	"context"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/bench/page"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// rates are measurements of how many there are a second, one a round.
type rates []float64

func (r rates) median() float64 { return page.Quantile(r, 0.5) }

// shown are median, least and most, each by way of show.
func (r rates) shown(show func(float64) float64) string {
	if len(r) == 0 {
		return ""
	}
	least, most := show(page.Quantile(r, 0)), show(page.Quantile(r, 1))
	return fmt.Sprintf("%s (%s–%s)", digits(show(r.median())), digits(min(least, most)), digits(max(least, most)))
}

// String shows them as they are.
func (r rates) String() string { return r.shown(func(f float64) float64 { return f }) }

// over divides each round's rate by another's of the same round: whatever the
// machine was busy with has met both.
func (r rates) over(others rates) rates {
	var quotients rates
	for i := range min(len(r), len(others)) {
		quotients = append(quotients, r[i]/others[i])
	}
	return quotients
}

// verdict shows quotients, and whether their median reaches a limit, 0 if there is
// none.
func (r rates) verdict(limit float64) string {
	text := r.String()
	switch {
	case len(r) == 0 || limit == 0:
		return text
	case r.median() >= limit:
		return text + " reached"
	}
	return text + " not reached"
}

// digits shows three of a figure that mean something.
func digits(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// path is a way from one namespace to another.
type path struct {
	name     string
	from, to *netlab.Namespace
	ipv4     netip.Addr      // of to
	ipv6     netip.Addr      // zero where it is not measured
	nodes    []*cluster.Node // where flatnetd runs
}

// rate executes the program load at both ends of a path, both on one CPU, and returns
// what the receiver's counted a second.
func (b *bench) rate(ctx context.Context, kind string, p path, to netip.Addr) (float64, error) {
	const port, patience = 7000, 2 * time.Minute
	window := b.amount.window
	ctx, cancel := context.WithTimeout(ctx, window+patience)
	defer cancel()
	cpu, err := lastCPU()
	if err != nil {
		return 0, err
	}
	fail := func(err error, complaints ...fmt.Stringer) (float64, error) {
		return 0, fmt.Errorf("measuring %s of %s: %w: %s", kind, p.name, err, complaints)
	}
	var complaint, partnerComplaint strings.Builder
	common := []string{kind, netip.AddrPortFrom(to, port).String(), fmt.Sprint(cpu)}
	load := func(role string, more ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(b.floor, "load"), append(append([]string{role}, common...), more...)...)
		// Else Go's runtime sends a signal to what computes for long.
		cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
		return cmd
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer read.Close()
	meter := load("meter", (window / 6).String(), window.String())
	meter.Stdout, meter.Stderr = write, &complaint
	wait, err := p.to.Start(meter)
	write.Close()
	if err != nil {
		return fail(err)
	}
	lines := bufio.NewScanner(read)
	if !lines.Scan() {
		return fail(wait(), &complaint)
	}
	partner := load("partner")
	partner.Stderr = &partnerComplaint
	waitForPartner, err := p.from.Start(partner)
	if err != nil {
		return fail(err)
	}
	counted := lines.Scan()
	_ = partner.Process.Kill() // it may have ended, when the meter did
	_ = waitForPartner()
	if err := wait(); err != nil || !counted {
		return fail(err, &complaint, &partnerComplaint)
	}
	return strconv.ParseFloat(lines.Text(), 64)
}

// lastCPU is that of the allowed ones that is asked least for interrupts.
func lastCPU() (int, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return 0, fmt.Errorf("asking for CPUs: %w", err)
	}
	last := 0
	for i := range len(allowed) * bits.UintSize {
		if allowed.IsSet(i) {
			last = i
		}
	}
	return last, nil
}
