package ipam

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGone: before a set is said to be full, pods that are proven gone make
// room.
func TestGone(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/64"}]]`)
	s := l.open()
	asked := map[string]int{}
	gone := map[string]bool{"b": true, "d": true}
	add := func(id string) string {
		got, err := s.Allocate(t.Context(), Request{Owner: Owner{id, "eth0"}, Pool: pool, Gone: func(r Reservation) bool {
			asked[r.Owner.ContainerID]++
			// It is called without the lock.
			if _, err := s.Lookup(t.Context(), r.Owner); err != nil {
				t.Error(err)
			}
			return gone[r.Owner.ContainerID]
		}})
		if err != nil {
			return err.Error()
		}
		return texts(allocated(got))
	}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		add(id)
	}
	if other := l.add(pool[1:], "v6only"); other != "fd00::7" {
		t.Errorf("got %s", other)
	}
	if len(asked) != 0 {
		t.Errorf("asked for %v without need", asked)
	}
	if got := add("f"); got != "10.0.0.3 fd00::8" && got != "10.0.0.5 fd00::8" {
		t.Errorf("got %s", got)
	}
	l.want("asked", fmt.Sprint(asked), "map[a:1 b:1 c:1 d:1 e:1]")
	if got := add("g"); got != "10.0.0.3 fd00::9" && got != "10.0.0.5 fd00::9" {
		t.Errorf("got %s", got)
	}
	l.want("no need to ask", fmt.Sprint(asked), "map[a:1 b:1 c:1 d:1 e:1]")
	l.want("full", add("h"), "no IP addresses available in range set 10.0.0.1-10.0.0.6: 5 reserved")
	l.want("the gone", l.lookup("b", "eth0")+l.lookup("d", "eth0"), "")
	l.want("the living", l.lookup("a", "eth0"), "10.0.0.2 fd00::2")
	l.intact()
}

// TestStolen: what Gone frees, others are quicker to take.
func TestStolen(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/30"}]]`)
	l.add(pool, "p0")
	calls := 0
	_, err := l.open().Allocate(t.Context(), Request{Owner: Owner{"late", "eth0"}, Pool: pool, Gone: func(r Reservation) bool {
		calls++
		l.del(r.Owner.ContainerID)
		l.want("quicker", l.add(pool, fmt.Sprint("p", calls)), "10.0.0.2")
		return true
	}})
	// The reservation that Gone was asked about exists no more.
	if e := as[*ExhaustedError](t, err); e.Stale != 0 {
		t.Errorf("%+v", e)
	}
	l.want("the quick one", l.lookup("p1", "eth0"), "10.0.0.2")
}

func TestCollect(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/16"}]]`)
	for i := range 300 {
		l.add(pool, fmt.Sprint("c", i))
	}
	s := l.open()
	start := time.Now()
	all, err := s.Reservations(t.Context())
	if err != nil || len(all) != 300 {
		t.Errorf("%d reservations, %v", len(all), err)
	}
	for _, r := range all {
		if r.Sandbox.Path != "/run/netns/"+r.Owner.ContainerID || r.Sandbox.Device != 4 || r.Sandbox.Inode != 4711 || r.Owner.Interface != "eth0" ||
			len(r.Addresses) != 1 || r.Since.After(start) || start.Sub(r.Since) > time.Minute {
			t.Errorf("%+v", r)
		}
		found, err := s.Find(t.Context(), r.Owner)
		if err != nil || fmt.Sprint(found) != fmt.Sprint(r) {
			t.Errorf("found %+v, %v, want %+v", found, err, r)
		}
	}
	if found, err := s.Find(t.Context(), Owner{"c1", "eth1"}); err != nil || found.Addresses != nil {
		t.Errorf("found %+v, %v", found, err)
	}
	collected, err := s.Collect(t.Context(), func(r Reservation) bool {
		if r.Owner.ContainerID == "c7" {
			// While it is being looked at, it goes and comes again.
			l.del("c7")
			l.want("c7", l.add(pool, "c7", r.Addresses[0].String()), r.Addresses[0].String())
		}
		return r.Owner.ContainerID != "c8"
	})
	if err != nil || len(collected) != 298 {
		t.Errorf("%d collected, %v", len(collected), err)
	}
	l.want("records", fmt.Sprint(l.records()), "map[10.0.0.10:c8 eth0 10.0.0.9:c7 eth0]")
	l.intact()
}

// TestFullDisk: an address can be released even if there is no room to
// remember that.
func TestFullDisk(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}]]`)
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		l.add(pool, id)
	}
	l.Step = func(operation string) error {
		if strings.HasPrefix(operation, "link ") {
			return unix.ENOSPC
		}
		return nil
	}
	l.want("del", l.del("b"), "10.0.0.3")
	l.want("del", l.del("d"), "10.0.0.5")
	_, err := l.open().Allocate(t.Context(), Request{Owner: Owner{"f", "eth0"}, Pool: pool})
	if !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	l.Step = nil
	l.intact()
	l.want("add", l.add(pool, "f"), "10.0.0.3")
	l.want("add", l.add(pool, "g"), "10.0.0.5")
	l.intact()
}
