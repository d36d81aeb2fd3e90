package fastpath_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// flowsMap is a node's map of flows, which belongs to its flatnetd.
func flowsMap(t *testing.T, n *cluster.Node) *ebpf.Map {
	t.Helper()
	directory := fmt.Sprintf("/proc/%d/fdinfo", n.Pid())
	files, err := os.ReadDir(directory)
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(directory, file.Name()))
		if err != nil {
			continue // one that was closed meanwhile
		}
		_, after, is := strings.Cut(string(text), "map_id:")
		if !is {
			continue
		}
		var id uint32
		_, err = fmt.Sscan(after, &id)
		must(t, err)
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		must(t, err)
		if m.Type() == ebpf.LRUHash {
			t.Cleanup(func() { m.Close() })
			return m
		}
		m.Close()
	}
	t.Fatalf("flatnetd on %s has no map of flows", n.Name)
	return nil
}

// More flows than the map takes: connections go on, whether theirs are forgotten or not,
// and take the fast path again.
func TestMoreFlowsThanAreRemembered(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.Dual, 1)
	n := s.Nodes[0]
	web, client := s.pod(n, "web"), s.pod(n, "client")
	web.Namespace.ServeLines(t, 80)
	var talks []*talk
	for i := range 6 {
		k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(i%2 > 0), 80))
		s.fast(k, n)
		talks = append(talks, k)
	}
	m := flowsMap(t, n)
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	const some = 5000
	for number := range 2 * uint64(m.MaxEntries()) {
		binary.BigEndian.PutUint64(key, (1+number)<<16) // addresses that nobody has
		must(t, m.Put(key, value))
		if number%some == 0 {
			for _, k := range talks[:len(talks)/2] { // the others are idle
				must(t, k.say(fmt.Sprint("meanwhile ", number)))
			}
		}
	}
	first := make([]byte, m.KeySize())
	binary.BigEndian.PutUint64(first, 1<<16)
	if err := m.Lookup(first, &value); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the map has not overflown: its first flow is there, %v", err)
	}
	for _, k := range talks {
		must(t, k.say("still"))
		s.fast(k, n)
	}
}
