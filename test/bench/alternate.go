package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// timing is what the attachments of one contender took.
type timing struct {
	name     string
	add, del sample
}

// alternate measures ADD and DEL of one pod by each of the runners in turn, as often
// as there are rounds, so that whatever the machine is busy with meets everybody.
//
// Neither order nor pace is regular. DEL ends when the kernel's RCU grace period does,
// so what comes next starts in step with the next one, and takes up to 10 ms more or
// less for its place in the row alone: in a fixed order the same program twice differs
// by half. Each round has its own order and each step a random pause before it.
func alternate(ctx context.Context, s *site, rounds int, runners []*runner) (timings, error) {
	found := make(timings, len(runners))
	for i, r := range runners {
		found[i].name = r.name
	}
	pods := s.podsFor((rounds + 1) * len(runners))
	dice := rand.New(rand.NewPCG(70, 70))
	for round := range rounds + 1 {
		for _, i := range dice.Perm(len(runners)) {
			r, p := runners[i], pods[round*len(runners)+i]
			if r.every > 1 && round%r.every != 1 {
				continue
			}
			pause(dice)
			add, err := r.add(ctx, p)
			if err != nil {
				return nil, err
			}
			pause(dice)
			del, err := r.del(ctx, p)
			if err != nil {
				return nil, err
			}
			// The first round warms up: it reads programs from the disk and
			// loads what the kernel had not needed so far.
			if round > 0 {
				found[i].add = append(found[i].add, add)
				found[i].del = append(found[i].del, del)
			}
		}
	}
	return found, nil
}

func pause(dice *rand.Rand) { time.Sleep(time.Duration(dice.Int64N(int64(10 * time.Millisecond)))) }

// timings are those of the contenders that were measured together.
type timings []timing

// add returns the sample of a contender's ADDs; it is empty if that was not measured.
func (t timings) add(name string) sample { return t.find(name).add }

// del returns the sample of a contender's DELs.
func (t timings) del(name string) sample { return t.find(name).del }

func (t timings) find(name string) timing {
	for _, one := range t {
		if one.name == name {
			return one
		}
	}
	return timing{}
}

// table shows ADD and DEL of each contender.
func (t timings) table() table {
	shown := table{head: []string{
		"", "ADD median, ms", "min", "p90", "DEL median, ms", "min", "p90", "runs",
	}}
	for _, one := range t {
		row := []string{one.name}
		for _, s := range []sample{one.add, one.del} {
			row = append(row, milliseconds(s.median()), milliseconds(s.quantile(0)), milliseconds(s.quantile(0.9)))
		}
		shown.rows = append(shown.rows, append(row, fmt.Sprint(len(one.add))))
	}
	return shown
}
