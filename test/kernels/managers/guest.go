package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/agent"
)

// port is where the results go.
var port = sync.OnceValue(func() *os.File {
	f, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	// As it is: no newline becomes two characters, and no signal comes of anything.
	_ = command("stty -F /dev/ttyS1 raw")
	return f
})

func tell(r Report) {
	line, _ := json.Marshal(r)
	fmt.Fprintf(port(), "%s\n", line)
}

func say(format string, a ...any) { fmt.Fprintf(port(), format+"\n", a...) }

// booted is there once the machine was up before.
const booted = home + "/booted"

// runGuest is what the machine does: the rows, and after a reboot what is left to say.
func runGuest() {
	raw, _ := os.ReadFile(home + "/run")
	only := regexp.MustCompile(string(raw))
	_, err := os.Stat(booted)
	again := err == nil
	if again {
		err = afterReboot()
	} else {
		err = firstBoot(only)
	}
	last := Report{End: true}
	if err != nil {
		last.Row, last.Error = "the machine", err.Error()
	}
	if !again && err == nil && only.MatchString(rebootRow) {
		err = errors.Join(keepAddress(1), os.WriteFile(booted, nil, 0o644))
		last.Reboot = err == nil
	}
	_ = command("journalctl -b --no-pager > " + home + "/journal")
	if last.Reboot {
		tell(Report{Reboot: true}) // the emulator ends with the machine
		_ = command("systemctl reboot")
		select {}
	}
	_ = command("sync")
	tell(last)
}

func firstBoot(only *regexp.Regexp) error {
	l, err := newLab(1)
	if err != nil {
		return err
	}
	if err := errors.Join(underlay(), files(), l.startAPI(), l.startOthers()); err != nil {
		return err
	}
	if err := all("systemctl enable --quiet flatnetd", "systemctl start flatnetd"); err != nil {
		return err
	}
	if err := l.populate(); err != nil {
		return err
	}
	stop := make(chan struct{})
	for _, p := range l.paths {
		go p.probe(l.pace, stop)
	}
	for _, r := range rows {
		if !only.MatchString(r.name) {
			if !r.always || !only.MatchString(strings.Fields(r.name)[0]) {
				continue
			}
		}
		tell(l.do(r))
	}
	close(stop)
	return nil
}

// populate makes the pods of all nodes, and waits until every path is right.
func (l *lab) populate() error {
	begin := time.Now()
	for _, p := range []struct {
		name, node string
		ports      bool
	}{{"a", "n1", true}, {"b", "n1", false}, {"c", "n2", false}, {"d", "n3", false}} {
		if err := awaitInstalled(p.node); err != nil {
			log, _ := output("tail -n 20 " + home + "/n1.log; ip addr; systemctl status flatnetd --no-pager")
			return fmt.Errorf("%w\n%s", err, log)
		}
		if err := l.addPod(p.name, p.node, p.ports); err != nil {
			return err
		}
	}
	l.services(l.pods["c"])
	if err := l.makePaths(); err != nil {
		return err
	}
	for _, p := range l.paths {
		if err := until("path "+p.name, 30*time.Second, p.ask); err != nil {
			return err
		}
	}
	say("pods of three nodes after %s", time.Since(begin).Round(time.Second))
	begin = time.Now()
	for _, p := range l.paths {
		if err := p.ask(); err != nil {
			return fmt.Errorf("path %s: %w", p.name, err)
		}
	}
	l.pace = paceOf(time.Since(begin))
	say("every path is tried every %s, and asked over every %s", l.pace.connect, l.pace.ask)
	return nil
}

// awaitPorts waits until host ports lead to their pod: a row before may have flushed
// the table, and flatnetd writes it again.
func (l *lab) awaitPorts() error {
	return until("host ports", time.Minute, func() error {
		var errs []error
		for _, p := range l.paths {
			if strings.HasPrefix(p.name, "hostport") {
				errs = append(errs, p.ask())
			}
		}
		return errors.Join(errs...)
	})
}

// do makes a row.
func (l *lab) do(r row) Report {
	report := Report{Row: r.name}
	fail := func(err error) Report {
		report.Error = err.Error()
		return report
	}
	if r.before != nil {
		if err := r.before(); err != nil {
			return fail(err)
		}
	}
	if err := l.awaitPorts(); err != nil {
		return fail(err)
	}
	for _, p := range l.paths {
		if p.broken != nil || p.connection == nil || time.Since(p.last) > time.Second {
			p.establish()
		}
	}
	time.Sleep(time.Second)
	repairs, lines := l.repairs(), logSize()
	begin := time.Now()
	for _, p := range l.paths {
		p.forget(begin)
	}
	err := r.action()
	took := time.Since(begin)
	report.Took = int(took / time.Millisecond)
	if err != nil {
		return fail(err)
	}
	limit := r.limit
	if limit == 0 {
		limit = 75 * time.Second // more than flatnetd's resync
	}
	const calm = 2 * time.Second
	for end := time.Now(); time.Since(end) < limit; time.Sleep(100 * time.Millisecond) {
		if time.Since(end) < calm+patience {
			continue
		}
		right := true
		for _, p := range l.paths {
			right = right && p.right(time.Now().Add(-calm-patience))
		}
		if right {
			break
		}
	}
	now := time.Now()
	machine := l.paths[0].outcome(now)
	report.Noise = max(noise, 2*machine.Gap)
	for _, p := range l.paths[1:] {
		o := p.outcome(now)
		report.Paths = append(report.Paths, o)
		if o.Broken {
			report.Whole = -1
		}
		if report.Whole < 0 {
			continue
		}
		if o.Lost > 0 {
			report.Whole = max(report.Whole, o.Last+int(l.pace.connect/time.Millisecond))
		}
		if o.Gap > report.Noise {
			report.Whole = max(report.Whole, o.GapAt+o.Gap)
		}
	}
	report.Repairs = map[string]int{}
	for kind, n := range l.repairs() {
		if more := n - repairs[kind]; more > 0 {
			report.Repairs[kind] = more
		}
	}
	if status, err := ask(); err == nil {
		for _, p := range status.Problems {
			report.Problems = append(report.Problems, fmt.Sprintf("%s %s (%s)", p.Object, p.Reason, p.Advice))
		}
	} else {
		report.Problems = append(report.Problems, err.Error())
	}
	report.Log = logSince(lines)
	if r.check != nil {
		if err := r.check(l, report); err != nil {
			report.Error = err.Error()
		}
	}
	if r.after != nil {
		if err := r.after(); err != nil {
			report.Error = err.Error()
		}
	}
	return report
}

// ask asks flatnetd for its status.
func ask() (agent.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return agent.AskStatus(ctx, "/run/flatnet")
}

// repairs are flatnetd's, by kind of object.
func (l *lab) repairs() map[string]int {
	found := map[string]int{}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://127.0.0.1:9370/metrics")
	if err != nil {
		return found
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	for _, m := range regexp.MustCompile(`(?m)^flatnet_repairs_total\{object="([^"]*)"\} (\d+)`).FindAllStringSubmatch(string(text), -1) {
		n := 0
		fmt.Sscan(m[2], &n)
		found[m[1]] = n
	}
	return found
}

const n1Log = home + "/n1.log"

func logSize() int64 {
	info, err := os.Stat(n1Log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// logSince are the lines of flatnetd's log that are worth a look.
func logSince(offset int64) []string {
	raw, err := os.ReadFile(n1Log)
	if err != nil || int64(len(raw)) < offset {
		return nil
	}
	var found []string
	for line := range strings.Lines(string(raw[offset:])) {
		line = strings.TrimSpace(line)
		if _, rest, cut := strings.Cut(line, " level="); cut {
			line = rest
		}
		found = append(found, line)
	}
	const most = 12
	if len(found) > most {
		found = append(found[:most], fmt.Sprintf("and %d more", len(found)-most))
	}
	return found
}
