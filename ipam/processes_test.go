package ipam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	childEnv     = "FLATNET_IPAM_TEST_CHILD" // the child's name
	childDirEnv  = "FLATNET_IPAM_TEST_DIRECTORY"
	childWorkEnv = "FLATNET_IPAM_TEST_ROUNDS"
)

const processesPool = `[[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/120"}]]`

// child allocates and releases for itself as often as it is told, in four
// goroutines, and fails if an address that it gets is somebody else's too.
func child() int {
	name, dir := os.Getenv(childEnv), os.Getenv(childDirEnv)
	rounds, _ := strconv.Atoi(os.Getenv(childWorkEnv))
	fmt.Println("started")
	var wg sync.WaitGroup
	var failure sync.Once
	status := 0
	for g := range 4 {
		wg.Go(func() {
			for i := range rounds {
				if err := attachment(dir, fmt.Sprintf("%s-%d-%d", name, g, i)); err != nil {
					failure.Do(func() {
						fmt.Fprintln(os.Stderr, err)
						status = 1
					})
				}
			}
		})
	}
	wg.Wait()
	return status
}

// attachment is the life of one.
func attachment(dir, id string) error {
	ctx := context.Background()
	s, err := Open(Options{Directory: dir, Network: "net", BootID: "this boot", LockTimeout: patience})
	if err != nil {
		return err
	}
	defer s.Close()
	pool, err := ParsePool("ranges", []byte(processesPool))
	if err != nil {
		return err
	}
	o := Owner{id, "eth0"}
	got, err := s.Allocate(ctx, Request{Owner: o, Pool: pool})
	if err != nil {
		return err
	}
	var claims []string
	for _, a := range got {
		// Who holds an address puts a file there, which nobody else may do.
		claim := filepath.Join(dir, "claims", a.Address.Addr().String())
		f, err := os.OpenFile(claim, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("%s was given to two owners: %w", a.Address, err)
		}
		f.Close()
		claims = append(claims, claim)
	}
	if held, err := s.Lookup(ctx, o); err != nil || len(held) != 2 {
		return fmt.Errorf("looked up %v: %w", held, err)
	}
	for _, claim := range claims {
		if err := os.Remove(claim); err != nil {
			return err
		}
	}
	freed, err := s.Release(ctx, o)
	if err != nil || len(freed) != 2 {
		return fmt.Errorf("released %v: %w", freed, err)
	}
	return nil
}

func (l *lab) child(name string, rounds int) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), childEnv+"="+name, childDirEnv+"="+l.root, fmt.Sprintf("%s=%d", childWorkEnv, rounds))
	return c
}

// TestProcesses: 64 at a time, in 16 processes, never get the same address,
// and leave nothing.
func TestProcesses(t *testing.T) {
	l := newLab(t)
	if err := os.Mkdir(filepath.Join(l.root, "claims"), 0o700); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if out, err := l.child(fmt.Sprint("p", i), 12).CombinedOutput(); err != nil {
				t.Errorf("child %d: %v\n%s", i, err, out)
			}
		})
	}
	wg.Wait()
	l.want("records", fmt.Sprint(l.records()), "map[]")
	l.intact()
}

// TestGoroutines is the same within one process, and one store.
func TestGoroutines(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/26"}]]`) // 61 addresses for 64
	s := l.open()
	var mu sync.Mutex
	holders := map[string]string{}
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 20 {
				o := Owner{fmt.Sprintf("c%d-%d", g, i), "eth0"}
				got, err := s.Allocate(t.Context(), Request{Owner: o, Pool: pool})
				if errors.As(err, new(*ExhaustedError)) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				addr := got[0].Address.Addr().String()
				mu.Lock()
				if holders[addr] != "" {
					t.Errorf("%s is both %s's and %s's", addr, holders[addr], o)
				}
				holders[addr] = o.ContainerID
				mu.Unlock()
				if i%2 == 0 {
					time.Sleep(rand.N(time.Millisecond)) // a pod's life
				}
				mu.Lock()
				holders[addr] = ""
				mu.Unlock()
				if freed, err := s.Release(t.Context(), o); err != nil || len(freed) != 1 {
					t.Errorf("released %v, %v", freed, err)
				}
			}
		})
	}
	wg.Wait()
	l.intact()
	l.fill(pool, 61)
}

// TestKilled kills processes at random moments.
func TestKilled(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, processesPool)
	l.want("bystander", l.add(pool, "bystander"), "10.0.0.2 fd00::2")
	for round := range 25 {
		// The claims of the one that was killed before.
		claims := filepath.Join(l.root, "claims")
		if err := errors.Join(os.RemoveAll(claims), os.Mkdir(claims, 0o700)); err != nil {
			t.Fatal(err)
		}
		c := l.child(fmt.Sprint("k", round), 1_000_000)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("started"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(10 * time.Millisecond)) // any moment will do
		_ = c.Process.Signal(syscall.SIGKILL)
		_ = c.Wait()

		held := l.records()
		if len(held) > 2+4*2 {
			t.Errorf("4 goroutines hold %v", held)
		}
		// Whoever comes next gets something else.
		got := l.add(pool, "next")
		l.intact()
		if l.del("next") != got {
			t.Errorf("round %d: got %s", round, got)
		}
		if _, err := l.open().Collect(t.Context(), func(r Reservation) bool { return r.Owner.ContainerID != "bystander" }); err != nil {
			t.Error(err)
		}
		l.want("records", fmt.Sprint(l.records()), "map[10.0.0.2:bystander eth0 fd00::2:bystander eth0]")
		l.intact()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	l.del("bystander")
	l.fill(pool, 253)
}
