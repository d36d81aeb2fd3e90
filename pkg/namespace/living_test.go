package namespace

import (
	"math"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that may not be looked at could be in any namespace.
func TestNothingIsGoneForCertainWithoutTheRightToLook(t *testing.T) {
	nobodys := Identity{Device: 4, Inode: math.MaxUint32 - 70}
	if !(&Living{}).Gone("/nonexistent", nobodys) {
		t.Error("a namespace that does not exist is not gone")
	}
	result := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its rights
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
		}
		for i := range data {
			data[i].Effective, data[i].Permitted, data[i].Inheritable = 0, 0, 0
		}
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
		}
		result <- (&Living{}).Gone("/nonexistent", nobodys)
	}()
	if <-result {
		t.Error("without the right to look at processes a namespace is said to be gone")
	}
}
