// Package pace knows how fast the machine is that tests run on. Where a test
// says how long something may take, it says so of a usual machine; an emulated
// one, as of test/kernels, takes many times that.
//
// Waiting for what has to happen needs no pace: that has a deadline far away.
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
