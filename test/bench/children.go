package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// children follows what a process executes, to know the most memory that one of
// them takes. One that ends within a step may be missed.
type children struct {
	end  func()
	done sync.WaitGroup
	most memory
}

func followChildren(ctx context.Context, parent int) *children {
	ctx, cancel := context.WithCancel(ctx)
	c := &children{end: cancel}
	c.done.Go(func() {
		const step = 10 * time.Millisecond
		own, _ := whose(parent)
		strangers := map[int]bool{}
		for ctx.Err() == nil {
			for _, pid := range processes() {
				if strangers[pid] {
					continue
				}
				name, of := whose(pid)
				if of != parent {
					strangers[pid] = true
					continue
				}
				if name == own {
					continue // it has not executed anything yet, and has its parent's memory
				}
				// It may have ended meanwhile.
				if _, most, err := memoryOf(pid); err == nil {
					c.most = max(c.most, most)
				}
			}
			time.Sleep(step)
		}
	})
	return c
}

// stop returns the most memory that a child has had.
func (c *children) stop() memory {
	c.end()
	c.done.Wait()
	return c.most
}

func processes() []int {
	directory, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer directory.Close()
	names, _ := directory.Readdirnames(-1)
	var all []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// whose returns a process's name and its parent, or nothing if it has ended.
func whose(pid int) (name string, parent int) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	// The name in parentheses may have anything in it.
	begin, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if begin < 0 || end < begin {
		return "", 0
	}
	fields := strings.Fields(string(raw[end+1:]))
	if len(fields) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(fields[1])
	return string(raw[begin+1 : end]), parent
}
