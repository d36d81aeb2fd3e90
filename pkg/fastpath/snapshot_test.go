package fastpath

import (
	"slices"
	"testing"
	"time"
)

// remember puts as many flows as are given into the map; the n-th has n bytes. Every fifth
// is of an earlier generation.
func remember(t testing.TB, p *programs, flows int) *Keeper {
	t.Helper()
	const batch = 5000
	for begin := 0; begin < flows; begin += batch {
		var keys []programKey
		var values []programFlow
		for i := begin; i < min(flows, begin+batch); i++ {
			keys = append(keys, programKey{Low: [2]uint64{uint64(i)}, High: [2]uint64{uint64(i)}, HighPort: 1, Protocol: 6, Family: 4})
			way := programWay{Generation: firstGeneration, Expires: 1 << 62, Bytes: uint64(i)}
			if i%5 == 0 {
				way.Generation--
			}
			values = append(values, programFlow{FromLow: way, Since: 1})
		}
		if _, err := p.Flows.BatchUpdate(keys, values, nil); err != nil {
			t.Fatal(err)
		}
	}
	return &Keeper{programs: p, generation: firstGeneration}
}

func TestMostFlows(t *testing.T) {
	k := remember(t, newStage(t).programs, 10_000)
	snapshot, err := k.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	for _, c := range []struct {
		most, wanted int // flows with fewer bytes than that
		want         []uint64
		more         int
	}{
		{3, 20_000, []uint64{9999, 9998, 9997}, 7997},
		{3, 3000, []uint64{2999, 2998, 2997}, 2397},
		{3, 3, []uint64{2, 1}, 0},
		{0, 5, []uint64{4, 3, 2, 1}, 0},
	} {
		found, more, err := snapshot.Most(c.most, func(f Flow) bool { return f.Bytes() < uint64(c.wanted) })
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, f := range found {
			got = append(got, f.Bytes())
		}
		if !slices.Equal(got, c.want) || more != c.more {
			t.Errorf("most %d below %d: %v and %d more, want %v and %d", c.most, c.wanted, got, more, c.want, c.more)
		}
	}
	if all, more, err := snapshot.Most(0, func(Flow) bool { return true }); len(all) != 8000 || more != 0 || err != nil {
		t.Errorf("all are %d and %d more: %v", len(all), more, err)
	}
}

// Who counts is not held up, and one count at a time is enough.
func TestCount(t *testing.T) {
	k := remember(t, newStage(t).programs, 1000)
	if got, err := k.Count(time.Minute); got.Flows != 800 || got.At.IsZero() || err != nil {
		t.Errorf("counted are %+v: %v", got, err)
	}
	// While a count goes on, what was counted last is the answer.
	running := make(chan struct{})
	k.counting.running = running
	if got, err := k.Count(0); got.Flows != 800 || err != nil {
		t.Errorf("meanwhile counted are %+v: %v", got, err)
	}
	k.counting.running = nil
	close(running)
	remember(t, k.programs, 2000)
	if got, err := k.Count(time.Minute); got.Flows != 1600 || err != nil {
		t.Errorf("then counted are %+v: %v", got, err)
	}
	if got, err := (&Keeper{}).Count(time.Minute); got.Flows != 0 || err != nil {
		t.Errorf("without programs counted are %+v: %v", got, err)
	}
}

func BenchmarkFlows(b *testing.B) {
	p, err := load()
	if err != nil {
		b.Skip(err)
	}
	defer p.Close()
	k := remember(b, p, Flows)
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if _, err := k.Count(time.Minute); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("count without patience", func(b *testing.B) {
		for b.Loop() {
			if _, err := k.Count(0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("the most of all", func(b *testing.B) {
		s, err := k.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		for b.Loop() {
			if _, _, err := s.Most(1000, func(Flow) bool { return true }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
