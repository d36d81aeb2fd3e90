package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// remains counts what flatnet has on a node.
type remains struct {
	interfaces   int // of group 70
	routes       int // of protocol 70, in all tables
	tables       int // of nftables
	reservations int // addresses that are held
	attachments  int // records of pods
}

func (n *node) remains() (r remains, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("looking for what is on %s: %w", n.name, err)
		}
	}()
	links, err := n.Netlink().LinkList()
	if err != nil {
		return r, err
	}
	for _, l := range links {
		if l.Attrs().Group == mark {
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
	isAddress := func(name string) bool { _, err := netip.ParseAddr(name); return err == nil }
	if r.reservations, err = countFiles(filepath.Join(n.stateDirectory(), "ipam", networkName), isAddress); err != nil {
		return r, err
	}
	r.attachments, err = countFiles(filepath.Join(n.stateDirectory(), "attachments"), func(string) bool { return true })
	return r, err
}

// countFiles counts the files with a certain kind of name; where there is no
// directory there are none.
func countFiles(directory string, counts func(name string) bool) (int, error) {
	entries, err := os.ReadDir(directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if counts(e.Name()) {
			n++
		}
	}
	return n, nil
}

// row is the counts as a line of a table.
func (r remains) row(label string) []string {
	row := []string{label}
	for _, n := range []int{r.interfaces, r.routes, r.tables, r.reservations, r.attachments} {
		row = append(row, strconv.Itoa(n))
	}
	return row
}

// countAll counts what is on each node.
func (d *demo) countAll() ([]remains, error) {
	var all []remains
	for _, n := range d.nodes {
		r, err := n.remains()
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// errLeft means that flatnet has left something.
var errLeft = errors.New("something is left of flatnet")

// lookBack removes the routes between the nodes, which the demonstration has
// added itself, and shows that nothing is left on them.
func (d *demo) lookBack() error {
	if err := d.disconnectNodes(); err != nil {
		return err
	}
	after, err := d.countAll()
	if err != nil {
		return err
	}
	d.heading("What is left")
	d.text("The routes between the nodes are removed as well. All that flatnet makes carries its mark, so\n" +
		"that it can be counted: while the pods were there, and now.")
	rows := [][]string{{"node", "", "interfaces", "routes", "nft tables", "reserved addresses", "attachments"}}
	for i, n := range d.nodes {
		rows = append(rows,
			append([]string{n.name}, d.busy[i].row("with pods")...),
			append([]string{""}, after[i].row("now")...))
	}
	d.table(rows)
	n := d.nodes[0]
	d.commands(
		fmt.Sprintf("ip -n %s link show group %d", n.name, mark),
		fmt.Sprintf("ip -n %s route show table all proto %d; ip -n %s -6 route show table all proto %d", n.name, mark, n.name, mark),
		fmt.Sprintf("ip netns exec %s nft list tables", n.name),
		fmt.Sprintf("ls %s/ipam/%s %s/attachments", n.stateDirectory(), networkName, n.stateDirectory()),
	)
	if err := nothing(d.nodes, after); err != nil {
		return err
	}
	d.summary = append(d.summary, "nothing left")
	return nil
}

// nothing fails if a node has anything, and says which and what.
func nothing(nodes []*node, counts []remains) error {
	var errs []error
	for i, r := range counts {
		if r != (remains{}) {
			errs = append(errs, fmt.Errorf("%w on %s: %+v", errLeft, nodes[i].name, r))
		}
	}
	return errors.Join(errs...)
}
