package agent

import "time"

// task is a piece of the agent's work. When several are due they are done in
// this order.
type task int

const (
	joinTask       task = iota // plan the fabric and the masquerading, and apply what is new
	verifyTask                 // compare the fabric with the kernel, and mend it
	masqueradeTask             // compare the agent's nftables table with the kernel, and mend it
	podsTask                   // mend what pods' attachments have lost
	hostTask                   // compare the host's settings, and mend them
	installTask                // compare binaries and configuration, and mend them
	kernelTask                 // ask the kernel whether it has what is needed
	servicesTask               // look at what the balancing of Services depends on
	collectTask                // remove what pods left behind
	restTask                   // give memory back
	numberOfTasks
)

var taskNames = [numberOfTasks]string{"join", "verify", "masquerade", "pods", "host", "install", "kernel", "services", "collect", "rest"}

func (t task) String() string { return taskNames[t] }

// gaps are the times that have to pass between two runs of a task: somebody who
// undoes all that the agent does must not keep it, and the kernel, busy.
var gaps = [numberOfTasks]time.Duration{
	verifyTask:     100 * time.Millisecond,
	masqueradeTask: 100 * time.Millisecond,
	podsTask:       300 * time.Millisecond,
	hostTask:       200 * time.Millisecond,
	installTask:    200 * time.Millisecond,
	kernelTask:     time.Second,
	servicesTask:   200 * time.Millisecond,
	collectTask:    time.Second,
	restTask:       10 * time.Second,
}

// schedule knows when which task is due.
type schedule struct {
	due      [numberOfTasks]time.Time // zero: not at all
	last     [numberOfTasks]time.Time
	failures [numberOfTasks]int // in a row
}

// soon makes a task due as soon as its gap allows.
func (s *schedule) soon(t task, now time.Time) {
	s.by(t, now)
}

// by makes a task due at the latest at a time, but not before its gap is over.
func (s *schedule) by(t task, when time.Time) {
	if earliest := s.last[t].Add(gaps[t]); when.Before(earliest) {
		when = earliest
	}
	if s.due[t].IsZero() || when.Before(s.due[t]) {
		s.due[t] = when
	}
}

// next returns the first task that is due, or else when one will be; the zero
// time where none will.
func (s *schedule) next(now time.Time) (t task, ready bool, when time.Time) {
	for t := range numberOfTasks {
		switch due := s.due[t]; {
		case due.IsZero():
		case !due.After(now):
			return t, true, due
		case when.IsZero() || due.Before(when):
			when = due
		}
	}
	return 0, false, when
}

// begin notes that a task is being done.
func (s *schedule) begin(t task, now time.Time) {
	s.due[t], s.last[t] = time.Time{}, now
}

// longestPause is that between attempts at what fails.
const longestPause = 30 * time.Second

// end notes how a task went. One that failed is tried again, after a time that
// doubles from half a second up.
func (s *schedule) end(t task, failed bool, now time.Time) {
	if !failed {
		s.failures[t] = 0
		return
	}
	pause := min(longestPause, 500*time.Millisecond<<min(s.failures[t], 10))
	s.failures[t]++
	s.by(t, now.Add(pause))
}
