package netlab

import "golang.org/x/sys/unix"

// OnOneProcessor keeps the calling thread where it is. What it sends is not overtaken by
// what it sends later, since each processor has one queue.
func OnOneProcessor() error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	return unix.SchedSetaffinity(0, &one)
}
