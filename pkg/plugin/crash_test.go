package plugin

import (
	"errors"
	"fmt"
	"testing"
)

// masqueraded is the configuration with the most steps, on a full stage for a pod of
// prod.
var masqueraded = also(map[string]any{
	"ipMasq": true, "ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 1_000_000, "egressBurst": 1_000_000,
}, withPorts("8080:80", "172.30.0.1:53:5353/udp"))

func newFullStage(t *testing.T) *stage {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	s.write(prodIsClosed)
	return s
}

// Every change of ADD fails once: ADD says so, and nothing is left of it.
func TestAddThatFailsAnywhereLeavesNothing(t *testing.T) {
	s := newFullStage(t)
	pod := s.lab.Pod("a")
	injected := errors.New("injected fault")
	for n := 1; ; n++ {
		calls, failed := 0, ""
		_, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, args: ofProd, config: masqueraded, step: func(operation string) error {
			if calls++; calls == n {
				failed = operation
				return injected
			}
			return nil
		}})
		if failed == "" {
			if err != nil {
				t.Errorf("ADD without a fault: %v", err)
			}
			t.Logf("%d changes", calls)
			if n < 25 {
				t.Errorf("only %d changes were reached", n-1)
			}
			break
		}
		if err == nil {
			t.Errorf("change %d (%s) failed, and ADD did not say so", n, failed)
		}
		s.checkNothingLeft(fmt.Sprintf("ADD failed at change %d (%s): %v", n, failed, err))
	}
	s.mustDel("a", pod.Path)
	s.checkNothingLeft("DEL")
}

// The process is killed before every change of ADD. What the runtime does next,
// DEL or GC, with the namespace or without, leaves nothing.
func TestAddThatIsKilledAnywhereIsCleanedUp(t *testing.T) {
	s := newFullStage(t)
	cleanUps := map[string]call{
		"DEL":                   {verb: "DEL", container: "a", config: masqueraded},
		"DEL without CNI_NETNS": {verb: "DEL", container: "a", config: masqueraded},
		"GC":                    {verb: "GC", config: map[string]any{"ipMasq": true, "cni.dev/valid-attachments": []any{}}},
	}
	for name, cleanUp := range cleanUps {
		pod := s.lab.Pod(fmt.Sprintf("pod%d", len(name)))
		if name == "DEL" {
			cleanUp.netns = pod.Path
		}
		for n := 1; ; n++ {
			_, killed, err := s.spawn(call{verb: "ADD", container: "a", netns: pod.Path, args: ofProd, config: masqueraded}, n)
			if err != nil {
				t.Fatalf("ADD that should be killed at change %d: %v", n, err)
			}
			if _, err := s.run(cleanUp); err != nil {
				t.Errorf("%s after ADD was killed at change %d: %v", name, n, err)
			}
			s.checkNothingLeft(fmt.Sprintf("%s after ADD was killed at change %d", name, n))
			if !killed {
				break
			}
		}
	}
}

// The process is killed before every change of DEL. Another DEL, or GC, leaves
// nothing, and until then nobody else gets the address.
func TestDelThatIsKilledAnywhereIsCleanedUp(t *testing.T) {
	s := newFullStage(t)
	pod, other := s.lab.Pod("a"), s.lab.Pod("b")
	for n := 1; ; n++ {
		first, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, args: ofProd, config: masqueraded})
		if err != nil {
			t.Fatal(err)
		}
		_, killed, err := s.spawn(call{verb: "DEL", container: "a", netns: pod.Path, config: masqueraded}, n)
		if err != nil {
			t.Errorf("DEL that should be killed at change %d: %v", n, err)
		}
		second, err := s.run(call{verb: "ADD", container: "b", netns: other.Path, args: ofProd, config: also(masqueraded, withPorts("8081:80"))})
		if err != nil {
			t.Fatalf("ADD after DEL was killed at change %d: %v", n, err)
		}
		if killed && fmt.Sprint(addressesOf(first)) == fmt.Sprint(addressesOf(second)) {
			t.Errorf("DEL was killed at change %d, and the next pod has its addresses %v", n, addressesOf(first))
		}
		if n%2 == 0 {
			s.mustDel("b", other.Path)
			s.mustDel("a", "")
		} else if _, err := s.run(call{verb: "GC", config: map[string]any{"ipMasq": true, "cni.dev/valid-attachments": []any{}}}); err != nil {
			t.Error(err)
		}
		s.checkNothingLeft(fmt.Sprintf("after DEL was killed at change %d", n))
		if !killed {
			break
		}
	}
}

// A DEL that fails anywhere succeeds when it is repeated.
func TestDelThatFailsAnywhereCanBeRepeated(t *testing.T) {
	s := newFullStage(t)
	pod := s.lab.Pod("a")
	for n := 1; ; n++ {
		if _, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, args: ofProd, config: masqueraded}); err != nil {
			t.Fatal(err)
		}
		calls := 0
		_, err := s.run(call{verb: "DEL", container: "a", netns: pod.Path, config: masqueraded, step: func(string) error {
			if calls++; calls == n {
				return errors.New("injected fault")
			}
			return nil
		}})
		if calls >= n && err == nil {
			t.Errorf("change %d failed, and DEL did not say so", n)
		}
		s.mustDel("a", pod.Path)
		s.checkNothingLeft(fmt.Sprintf("repeated DEL after change %d failed", n))
		if calls < n {
			break
		}
	}
}
