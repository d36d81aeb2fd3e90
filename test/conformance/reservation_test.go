package conformance

import (
	"bytes"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// reservations are the addresses that a network's IPAM state holds, with the
// record of each: a file named for the address, which holds the container's id
// and the interface's name in lines of their own.
func (s *stage) reservations(network string) map[netip.Addr]string {
	found := map[netip.Addr]string{}
	entries, err := os.ReadDir(filepath.Join(s.dataDir(), network))
	if err != nil && !os.IsNotExist(err) {
		panic(err)
	}
	for _, entry := range entries {
		address, err := netip.ParseAddr(entry.Name())
		if err != nil {
			continue
		}
		content, err := os.ReadFile(filepath.Join(s.dataDir(), network, entry.Name()))
		if err != nil {
			panic(err)
		}
		found[address] = string(content)
	}
	return found
}

// record is the path of an address's reservation.
func (s *stage) record(address netip.Addr) string {
	return filepath.Join(s.dataDir(), network, address.String())
}

// reserved says whether an address is reserved for an attachment.
func (s *stage) reserved(address netip.Addr, a attachment) bool {
	return strings.Fields(s.reservations(network)[address] + " -")[0] == a.id
}

// mentions lists the files that name a container, below what the plugin was
// told to use and below /run, where it may keep more.
func (s *stage) mentions(id string) []string {
	var found []string
	for _, root := range []string{s.state, "/run"} {
		filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone meanwhile
			}
			if strings.Contains(entry.Name(), id) {
				found = append(found, path)
			}
			if entry.Type().IsRegular() && !strings.HasPrefix(path, "/run/netns/") {
				if content, err := os.ReadFile(path); err == nil && bytes.Contains(content, []byte(id)) {
					found = append(found, path)
				}
			}
			return nil
		})
	}
	return found
}

// picture is the state of the stage at one moment.
type picture struct {
	node string
	pods map[string]string
}

// look takes a picture of the node and of some pods.
func (s *stage) look(pods ...attachment) picture {
	p := picture{node: snapshot(s.node.Namespace), pods: map[string]string{}}
	for _, a := range pods {
		p.pods[a.id] = snapshot(a.space)
	}
	return p
}

// unchanged demands that node and pods are what they were.
func (s *stage) unchanged(what string, before picture, pods ...attachment) {
	now := s.look(pods...)
	if now.node != before.node {
		s.failf("%s changed the node: %s", what, difference(before.node, now.node))
	}
	for _, a := range pods {
		if now.pods[a.id] != before.pods[a.id] {
			s.failf("%s changed pod %s: %s", what, a.space.Name, difference(before.pods[a.id], now.pods[a.id]))
		}
	}
}

// nothingLeft demands that node and pods are what they were and that no file
// names one of the pods.
func (s *stage) nothingLeft(what string, before picture, pods ...attachment) {
	s.unchanged(what, before, pods...)
	for _, a := range pods {
		if files := s.mentions(a.id); len(files) > 0 {
			s.failf("%s left the container's id in %v", what, files)
		}
	}
}
