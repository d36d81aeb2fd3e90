package fabric_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// volatile is what changes by itself in what `ip` and `nft` print.
var volatile = regexp.MustCompile(` expires \S+| used \S+| lastuse \S+|@if\d+|@\S+(:)| qlen \d+|valid_lft \S+| link-netns \S+| link-netnsid \d+|counter packets \d+ bytes \d+|\S+_timer +\S+`)

// remembered are sources that the kernel has found to be a pod's, and forgets.
var remembered = regexp.MustCompile(`"veth[0-9a-f]{11}" \. [0-9a-f:]+ timeout`)

// list is the sorted output of commands in a node's namespace.
func list(n *cluster.Node, commands ...string) (string, error) {
	// One shell for all: starting a process takes longer than what it does.
	out, err := n.Output("sh", "-c", strings.Join(commands, "\n"))
	if err != nil {
		return "", err
	}
	var lines []string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(volatile.ReplaceAllString(line, "$1"), " \n")
		if line != "" && !remembered.MatchString(line) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// everything lists what there is in the kernel on a node, except what it makes
// and forgets by itself.
func everything(t *testing.T, n *cluster.Node) string {
	t.Helper()
	// Indices differ from run to run.
	return get(list(n,
		"ip -o -d link | sed 's/^[0-9]*: //'", "ip -o addr | sed 's/^[0-9]*: //'",
		"ip -4 route show table all", "ip -6 route show table all", "ip -4 rule", "ip -6 rule",
		"ip -4 neigh show nud permanent", "ip -6 neigh show nud permanent", "bridge fdb | grep permanent",
		"nft list ruleset"))(t)
}

// holdTable lives as long as a flatnetd does: the kernel removes it with its owner.
const holdTable = "flatnet-hold"

// tryOurs lists what flatnetd keeps on a node, pods' attachments included.
func tryOurs(n *cluster.Node) (string, error) {
	return list(n,
		"ip -4 route show table all proto 70", "ip -6 route show table all proto 70", "ip -4 rule | grep 7070", "ip -6 rule | grep 7070",
		"ip -o -d link show flatnet.vx | sed 's/^[0-9]*: //; s/addrgenmode.*//'", "ip -o addr show dev flatnet.vx | sed 's/^[0-9]*: //'",
		"ip -4 neigh show nud permanent", "ip -6 neigh show nud permanent", "bridge fdb show dev flatnet.vx",
		"sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.eth0.forwarding net.ipv6.conf.eth0.forwarding", "grep -x 1 /proc/sys/net/ipv4/conf/eth0/rp_filter /proc/sys/net/ipv4/conf/flatnet.vx/rp_filter",
		"nft list tables | grep -v "+holdTable, "nft list table inet flatnet", "nft list table ip6 flatnet", "nft list table inet flatnet-ports 2>/dev/null || true",
		"stat -c '%n %a %F' "+n.BinDir+"/* "+n.ConfDir+"/*", "cksum "+n.BinDir+"/* "+n.Conflist(), "true")
}

func ours(t *testing.T, n *cluster.Node) string {
	t.Helper()
	return get(tryOurs(n))(t)
}

// differing shows the lines in which two listings differ.
func differing(before, after string) string {
	var b strings.Builder
	show := func(mark, text, other string) {
		lines := strings.Split(other, "\n")
		for line := range strings.SplitSeq(text, "\n") {
			if !slices.Contains(lines, line) {
				fmt.Fprintf(&b, "\n%s %s", mark, line)
			}
		}
	}
	show("-", before, after)
	show("+", after, before)
	return b.String()
}

// changes records notifications of the kernel in a node's namespace.
type changes struct{ route, netfilter int }

// watchKernel records what is made, changed or removed from now on: by netlink
// and in nftables.
func watchKernel(t *testing.T, n *cluster.Node) *changes {
	t.Helper()
	const nftablesGroup = 7 // NFNLGRP_NFTABLES
	return &changes{
		route: subscribe(t, n, unix.NETLINK_ROUTE,
			unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
			unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF),
		netfilter: subscribe(t, n, unix.NETLINK_NETFILTER, nftablesGroup),
	}
}

func subscribe(t *testing.T, n *cluster.Node, family int, groups ...int) (fd int) {
	t.Helper()
	must(t, n.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		for _, group := range groups {
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
				return err
			}
		}
		return nil
	}))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// seen returns the notifications so far, by the name of their message. Those
// about neighbours that the kernel itself found are left out, and transactions on
// the table that each flatnetd makes for itself.
func (c *changes) seen(t *testing.T) []string {
	t.Helper()
	names := map[uint16]string{
		unix.RTM_NEWLINK: "link", unix.RTM_DELLINK: "link gone", unix.RTM_NEWADDR: "address", unix.RTM_DELADDR: "address gone",
		unix.RTM_NEWROUTE: "route", unix.RTM_DELROUTE: "route gone", unix.RTM_NEWRULE: "rule", unix.RTM_DELRULE: "rule gone",
		unix.RTM_NEWNEIGH: "permanent neighbour", unix.RTM_DELNEIGH: "permanent neighbour gone", unix.RTM_NEWNETCONF: "setting",
	}
	var all []string
	for _, m := range received(t, c.route) {
		const stateOffset = 8 // in struct ndmsg
		neighbour := m.Header.Type == unix.RTM_NEWNEIGH || m.Header.Type == unix.RTM_DELNEIGH
		if !neighbour || m.Data[stateOffset]&unix.NUD_PERMANENT != 0 {
			all = append(all, fmt.Sprintf("%s % x", names[m.Header.Type], m.Data))
		}
	}
	var transaction []string
	hold := 0
	for _, m := range received(t, c.netfilter) {
		transaction = append(transaction, fmt.Sprintf("nftables message %d % x", m.Header.Type&0xff, m.Data))
		if bytes.Contains(m.Data, []byte(holdTable+"\x00")) {
			hold++
		}
		if m.Header.Type&0xff == unix.NFT_MSG_NEWGEN { // its end
			if len(transaction) != hold+1 || hold == 0 {
				all = append(all, transaction...)
			}
			transaction, hold = nil, 0
		}
	}
	return append(all, transaction...)
}

// received reads what a socket has got.
func received(t *testing.T, fd int) []syscall.NetlinkMessage {
	t.Helper()
	var all []syscall.NetlinkMessage
	for {
		buffer := make([]byte, 64<<10)
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err == unix.EAGAIN {
			return all
		}
		must(t, err)
		all = append(all, get(syscall.ParseNetlinkMessage(buffer[:n]))(t)...)
	}
}

// modified tells apart two states of files, without their content.
func modified(t *testing.T, paths ...string) string {
	t.Helper()
	var b strings.Builder
	for _, path := range paths {
		info, err := os.Stat(path)
		must(t, err)
		fmt.Fprintln(&b, path, info.ModTime(), info.Size(), info.Mode())
	}
	return b.String()
}
