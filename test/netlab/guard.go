package netlab

import (
	"errors"
	"runtime"
)

// Guarded calls f, and makes an error of a lab's panic, which is what a lab
// without a test has to say that it could not do something.
func Guarded(f func() error) (err error) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		var programming runtime.Error
		failure, ok := cause.(error)
		if !ok || errors.As(failure, &programming) {
			panic(cause)
		}
		err = failure
	}()
	return f()
}
