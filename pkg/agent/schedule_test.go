package agent

import (
	"testing"
	"time"
)

func TestTasksAreDoneInOrderAndNotTooOften(t *testing.T) {
	var s schedule
	now := time.Unix(1000, 0)
	s.soon(verifyTask, now)
	s.soon(joinTask, now)
	if task, ready, _ := s.next(now); !ready || task != joinTask {
		t.Errorf("first is %s (%v), not join", task, ready)
	}
	s.begin(joinTask, now)
	if task, ready, _ := s.next(now); !ready || task != verifyTask {
		t.Errorf("second is %s (%v), not verify", task, ready)
	}
	s.begin(verifyTask, now)
	if _, ready, when := s.next(now); ready || !when.IsZero() {
		t.Errorf("something is due at %v", when)
	}
	// At once again: only after its gap.
	s.soon(verifyTask, now)
	if _, ready, when := s.next(now); ready || !when.Equal(now.Add(gaps[verifyTask])) {
		t.Errorf("verify is due at %v (%v)", when, ready)
	}
	// What is due earlier is not put off by a later wish.
	s.by(verifyTask, now.Add(time.Hour))
	if _, _, when := s.next(now); !when.Equal(now.Add(gaps[verifyTask])) {
		t.Errorf("verify is put off to %v", when)
	}
}

func TestWhatFailsIsTriedAgainEverMoreSeldom(t *testing.T) {
	var s schedule
	now := time.Unix(1000, 0)
	var pauses []time.Duration
	for range 9 {
		s.begin(hostTask, now)
		s.end(hostTask, true, now)
		_, _, when := s.next(now)
		pauses = append(pauses, when.Sub(now))
		now = when
	}
	want := []time.Duration{500e6, 1e9, 2e9, 4e9, 8e9, 16e9, 30e9, 30e9, 30e9}
	for i := range want {
		if pauses[i] != want[i] {
			t.Fatalf("pauses are %v, not %v", pauses, want)
		}
	}
	s.begin(hostTask, now)
	s.end(hostTask, false, now)
	if _, ready, when := s.next(now); ready || !when.IsZero() {
		t.Errorf("after success something is due at %v", when)
	}
	s.begin(hostTask, now)
	s.end(hostTask, true, now)
	if _, _, when := s.next(now); when.Sub(now) != want[0] {
		t.Errorf("after success the pause begins with %v", when.Sub(now))
	}
}

func TestEveryTaskHasAName(t *testing.T) {
	for x := range numberOfTasks {
		if x.String() == "" {
			t.Errorf("task %d has none", int(x))
		}
	}
}
