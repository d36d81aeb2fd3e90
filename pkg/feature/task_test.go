package feature

import (
	"errors"
	"testing"
	"time"
)

func TestTasksAreDoneInOrderAndNotTooOften(t *testing.T) {
	join, verify := &Task{Name: "join"}, &Task{Name: "verify", Gap: 100 * time.Millisecond}
	s := Schedule{join, verify}
	now := time.Unix(1000, 0)
	verify.By(now)
	join.By(now)
	if task, _ := s.Next(now); task != join {
		t.Errorf("first is %v, not join", task)
	}
	join.Begin(now)
	if task, _ := s.Next(now); task != verify {
		t.Errorf("second is %v, not verify", task)
	}
	verify.Begin(now)
	if task, when := s.Next(now); task != nil || !when.IsZero() {
		t.Errorf("something is due at %v", when)
	}
	// At once again: only after its gap.
	verify.By(now)
	if task, when := s.Next(now); task != nil || !when.Equal(now.Add(verify.Gap)) {
		t.Errorf("verify is due at %v (%v)", when, task)
	}
	// What is due earlier is not put off by a later wish.
	verify.By(now.Add(time.Hour))
	if _, when := s.Next(now); !when.Equal(now.Add(verify.Gap)) {
		t.Errorf("verify is put off to %v", when)
	}
}

func TestWhatFailsIsTriedAgainEverMoreSeldom(t *testing.T) {
	host := &Task{Gap: 200 * time.Millisecond}
	s := Schedule{host}
	failed := errors.New("failed")
	now := time.Unix(1000, 0)
	var pauses []time.Duration
	for range 9 {
		host.Begin(now)
		host.End(failed, now)
		_, when := s.Next(now)
		pauses = append(pauses, when.Sub(now))
		now = when
	}
	want := []time.Duration{500e6, 1e9, 2e9, 4e9, 8e9, 16e9, 30e9, 30e9, 30e9}
	for i := range want {
		if pauses[i] != want[i] {
			t.Fatalf("pauses are %v, not %v", pauses, want)
		}
	}
	if host.Done() || host.Err() != failed {
		t.Errorf("done %t, %v", host.Done(), host.Err())
	}
	host.Begin(now)
	host.End(nil, now)
	if task, when := s.Next(now); task != nil || !when.IsZero() || !host.Done() || host.Err() != nil {
		t.Errorf("after success something is due at %v, done %t, %v", when, host.Done(), host.Err())
	}
	host.Begin(now)
	host.End(failed, now)
	if _, when := s.Next(now); when.Sub(now) != want[0] || !host.Done() {
		t.Errorf("after success the pause begins with %v", when.Sub(now))
	}
}

// A task with an interval comes again by itself, and one that failed no later than that.
func TestTasksComeAgain(t *testing.T) {
	host := &Task{Every: time.Minute}
	s := Schedule{host}
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		err  error
		want time.Duration
	}{{nil, time.Minute}, {errors.New("failed"), 500 * time.Millisecond}} {
		host.Begin(now)
		host.End(c.err, now)
		if _, when := s.Next(now); when.Sub(now) != c.want {
			t.Errorf("after %v it is due after %v, not %v", c.err, when.Sub(now), c.want)
		}
	}
}

// What other goroutines ask for is due when it is taken.
func TestAsking(t *testing.T) {
	host, other := &Task{}, &Task{}
	s := Schedule{other, host}
	woken := 0
	s.Wake(func() { woken++ })
	host.Ask()
	if task, _ := s.Next(time.Now()); task != nil {
		t.Error("a task was made due on another goroutine")
	}
	s.TakeAsked()
	if task, _ := s.Next(time.Now()); task != host || woken != 1 {
		t.Errorf("%v is due, woken %d times", task, woken)
	}
}
