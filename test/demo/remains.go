package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// The marks of what flatnet makes: the protocol number of its routes and rules
// is also the group of pods' interfaces.
const (
	mark   = 70
	tunnel = "flatnet.vx"
)

// remains counts what flatnet has on a node.
type remains struct {
	interfaces int // of group 70, and the overlay's
	routes     int // of protocol 70, in all tables
	rules      int // of protocol 70: ip rule
	tables     int // of nftables
	files      int // binaries, configuration, state
}

func countRemains(n *cluster.Node) (r remains, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("looking for what is on %s: %w", n.Name, err)
		}
	}()
	links, err := n.Netlink().LinkList()
	if err != nil {
		return r, err
	}
	for _, l := range links {
		if l.Attrs().Group == mark || l.Attrs().Name == tunnel {
			r.interfaces++
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := n.Netlink().RouteListFiltered(family,
			&netlink.Route{Protocol: mark, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return r, err
		}
		r.routes += len(routes)
		rules, err := n.Netlink().RuleList(family)
		if err != nil {
			return r, err
		}
		for _, rule := range rules {
			if rule.Protocol == mark {
				r.rules++
			}
		}
	}
	conn, err := nftables.New(nftables.WithNetNSFd(n.FD()))
	if err != nil {
		return r, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return r, err
	}
	r.tables = len(tables)
	for _, directory := range []string{n.StateDir, n.BinDir, n.ConfDir} {
		files, err := countFiles(directory)
		if err != nil {
			return r, err
		}
		r.files += files
	}
	return r, nil
}

// countFiles counts what is no directory at or below a path; where there is
// nothing there are none.
func countFiles(directory string) (files int, err error) {
	err = filepath.WalkDir(directory, func(_ string, e fs.DirEntry, err error) error {
		// A file may end while it is looked at.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !e.IsDir() {
			files++
		}
		return err
	})
	return files, err
}

// row is the counts as a line of a table.
func (r remains) row(label string) []string {
	row := []string{label}
	for _, n := range []int{r.interfaces, r.routes, r.rules, r.tables, r.files} {
		row = append(row, strconv.Itoa(n))
	}
	return row
}

// countAll counts what is on each node.
func (d *demo) countAll() ([]remains, error) {
	var all []remains
	for _, n := range d.nodes {
		r, err := countRemains(n)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// errLeft means that flatnet has left something.
var errLeft = errors.New("something is left of flatnet")

// nothing fails if a node has anything, and says which and what.
func nothing(nodes []*cluster.Node, counts []remains) error {
	var errs []error
	for i, r := range counts {
		if r != (remains{}) {
			errs = append(errs, fmt.Errorf("%w on %s: %+v", errLeft, nodes[i].Name, r))
		}
	}
	return errors.Join(errs...)
}
