package agent

import (
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/bgp"
	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

// session is one with a neighbour.
type session struct {
	message.Session
	since  time.Time           // of the state, or that it is not established
	reason string              // why it is not
	ended  map[bgp.Family]bool // all of these was sent
}

// follows has sessions for those who are neighbours now, and for nobody else.
func (f *routing) follows(d bgp.Desired) {
	now := map[string]bool{}
	for _, n := range d.Neighbours {
		now[n.Name] = true
		if f.sessions[n.Name] == nil {
			f.sessions[n.Name] = &session{since: time.Now(), Session: message.Session{State: "idle"}, ended: map[bgp.Family]bool{}}
		}
	}
	for name := range f.sessions {
		if !now[name] {
			delete(f.sessions, name)
			delete(f.stale, name)
			f.table.Down(name, false)
			f.unlearned = true
			f.task.Soon()
		}
	}
}

// take takes note of one event.
func (f *routing) take(e message.Event) {
	f.unlearned = true
	keep := time.Duration(0)
	if f.current != nil {
		keep = time.Duration(f.current.RestartTime)
	}
	switch {
	case e.Applied:
		f.failure = e.Error
		return
	case e.Neighbour == "":
		// It is started again, and neighbours keep the node's routes: so does the node theirs.
		f.failure = bgpProgram + " has ended: " + e.Error
		for name, s := range f.sessions {
			f.down(name, s, true, keep)
		}
		return
	}
	s := f.sessions[e.Neighbour]
	if s == nil {
		return // no longer wanted
	}
	if e.Session != nil {
		f.become(e.Neighbour, s, *e.Session, keep)
	}
	if len(e.Paths)+len(e.Withdrawn) > 0 {
		f.table.Update(e.Neighbour, e.Paths, e.Withdrawn)
	}
	if e.End != "" {
		s.ended[e.End] = true
		f.table.End(e.Neighbour, e.End)
	}
}

// become takes note of the state of a session.
func (f *routing) become(name string, s *session, now message.Session, keep time.Duration) {
	switch {
	case now.Established && !s.Established:
		s.Session, s.since, s.reason, s.ended = now, time.Now(), "", map[bgp.Family]bool{}
		f.transient.WithLabelValues("established").Inc()
		f.Log.Info("BGP session established", "peer", name)
		return
	case s.Established && !now.Established:
		s.reason = now.Reason
		f.down(name, s, f.keeps(name), keep)
	case !now.Established && now.Reason != "":
		s.reason = now.Reason
	}
	s.Session = now
}

// keeps reports whether a neighbour's routes are kept while it restarts.
func (f *routing) keeps(name string) bool {
	return f.wanted != nil && slices.ContainsFunc(f.wanted.Neighbours, func(n bgp.Neighbour) bool { return n.Name == name && n.KeepRoutes })
}

// down says that a session has ended.
func (f *routing) down(name string, s *session, keepRoutes bool, keep time.Duration) {
	if s.Established {
		s.Session, s.since = message.Session{State: "idle"}, time.Now()
		f.transient.WithLabelValues("down").Inc()
		f.Log.Warn("BGP session has ended", "peer", name, "reason", s.reason)
	}
	f.table.Down(name, keepRoutes)
	if keepRoutes {
		f.stale[name] = time.Now().Add(keep)
		f.task.By(f.stale[name])
	}
}

// expire drops what is kept of those that did not come back in time.
func (f *routing) expire() {
	now := time.Now()
	for name, until := range f.stale {
		complete := name == "" && f.complete()
		if !complete && until.After(now) {
			f.task.By(until)
			continue
		}
		delete(f.stale, name)
		f.unlearned = true
		if name == "" {
			f.table.Unseed()
		} else {
			f.table.Expire(name)
		}
	}
}

// complete reports whether all neighbours have told all that they have.
func (f *routing) complete() bool {
	if f.wanted == nil {
		return false
	}
	for _, n := range f.wanted.Neighbours {
		s := f.sessions[n.Name]
		if s == nil || !s.Established || slices.ContainsFunc(n.Families, func(family bgp.Family) bool { return !s.ended[family] }) {
			return false
		}
	}
	return true
}
