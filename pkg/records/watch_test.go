package records

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
)

// Whoever watches is told of what is there, of what comes and of what goes.
func TestWatch(t *testing.T) {
	d := attachment.OpenDirectory(t.TempDir())
	record := func(id string) attachment.Record {
		return attachment.Record{Key: attachment.Key{Network: "net", ContainerID: id, Interface: "eth0"}, Pod: "ns/" + id}
	}
	if err := d.Put(record("a")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan string), make(chan error)
	go func() {
		ended <- Watch(ctx, d, func(all []attachment.Record) {
			var names []string
			for _, r := range all {
				names = append(names, r.Pod)
			}
			slices.Sort(names)
			told <- strings.Join(names, " ")
		})
	}()
	// until is told of a state; on the way there others may be told, and one twice.
	until := func(want string) {
		t.Helper()
		var seen []string
		for {
			select {
			case got := <-told:
				if seen = append(seen, got); got == want {
					return
				}
			case <-t.Context().Done():
				t.Fatalf("waited for %q, told %q", want, seen)
			}
		}
	}
	until("ns/a")
	for _, id := range []string{"b", "c"} {
		if err := d.Put(record(id)); err != nil {
			t.Fatal(err)
		}
	}
	until("ns/a ns/b ns/c")
	if err := d.Delete(record("a").Key); err != nil {
		t.Fatal(err)
	}
	until("ns/b ns/c")
	// Somebody removes it all, and an ADD makes it again.
	if err := os.RemoveAll(d.Path()); err != nil {
		t.Fatal(err)
	}
	until("")
	if err := d.Put(record("d")); err != nil {
		t.Fatal(err)
	}
	until("ns/d")
	cancel()
	for {
		select {
		case <-told:
			continue
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
}

// A directory that is not there is made, and watched from the first record on.
func TestWatchWithoutDirectory(t *testing.T) {
	d := attachment.OpenDirectory(filepath.Join(t.TempDir(), "state"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := make(chan int)
	go func() {
		_ = Watch(ctx, d, func(all []attachment.Record) {
			select {
			case told <- len(all):
			case <-ctx.Done():
			}
		})
	}()
	if n := <-told; n != 0 {
		t.Errorf("%d records of none", n)
	}
	if err := d.Put(attachment.Record{Key: attachment.Key{Network: "net", ContainerID: fmt.Sprint(1), Interface: "eth0"}}); err != nil {
		t.Fatal(err)
	}
	for n := range told {
		if n == 1 {
			return
		}
	}
}
