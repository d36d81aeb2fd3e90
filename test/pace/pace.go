// Package pace knows how fast the machine is that tests run on, and how long one
// waits there. A test has to hold on a machine that is busy with something else
// (test/hostile), where everything may take a hundred times as long, and a
// goroutine or a packet may be seconds late. So:
//
//   - What has to happen is waited for with [Await] and [Far]: a deadline that only
//     what never happens meets.
//   - What must not happen has no time of its own, but comes before something that
//     is waited for, on the same way. Where there is no such thing, a short time is
//     good enough: being late, the wrong thing is missed now and then, and the
//     right one never fails.
//   - How long something takes is logged, and measured by test/bench.
package pace

import (
	"os"
	"strconv"
	"time"
)

// variable says how many times slower than a usual machine this one is.
const variable = "FLATNET_PACE"

// Of is how long something may take here that takes d at most on a usual machine.
func Of(d time.Duration) time.Duration { return d * time.Duration(times()) }

// Far is how long something may take that has to happen, whatever else the machine
// does meanwhile.
func Far() time.Duration { return max(2*time.Minute, Of(30*time.Second)) }

// Slow reports whether this machine is slower than a usual one: what is repeated
// for good measure may be repeated less often there.
func Slow() bool { return times() > 1 }

// Await asks until there is no error, or for as long as patience, and then returns the
// last one. It also returns how long it took. What is waited for normally takes far less.
func Await(patience time.Duration, ask func() error) (took time.Duration, err error) {
	for begin := time.Now(); ; {
		asked := time.Now()
		err := ask()
		took := time.Since(begin)
		if err == nil || took > patience {
			return took, err
		}
		// To ask takes no more of the machine than it leaves to those who are to do it.
		time.Sleep(max(2*time.Millisecond, time.Since(asked)))
	}
}

func times() int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 1 {
		return n
	}
	return 1
}
