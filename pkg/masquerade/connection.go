package masquerade

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

const (
	tableName = "flatnet"
	family    = nftables.TableFamilyINet

	// A transaction is sent as one datagram, and the elements of 5,000 nodes
	// with two families are a megabyte of it. More than net.core.wmem_max
	// needs CAP_NET_ADMIN on the machine.
	bufferBytes = 16 << 20

	// An attribute ends at 64 KiB, and an IPv6 prefix takes 64 bytes.
	chunk = 500
)

func table() *nftables.Table { return &nftables.Table{Family: family, Name: tableName} }

// connection is a netlink socket in the namespace in which it was opened.
type connection struct {
	*nftables.Conn
	raw  *netlink.Conn // the same socket
	port uint32        // by which notifications tell whose transaction they are about
}

func connect() (*connection, error) {
	c := &connection{}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(raw *netlink.Conn) error {
		c.raw = raw
		// The kernel gives what it allows; what is too small shows when a
		// transaction is sent.
		_ = raw.SetWriteBuffer(bufferBytes)
		_ = raw.SetReadBuffer(bufferBytes)
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	c.Conn = conn
	if c.port, err = portOf(c.raw); err != nil {
		c.close()
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return c, nil
}

// close does not wait: where the socket deleted elements, the kernel keeps who
// closes it until no packet can be using them, some tens of milliseconds.
func (c *connection) close() { go c.CloseLasting() }

func portOf(raw *netlink.Conn) (port uint32, err error) {
	control, err := raw.SyscallConn()
	if err != nil {
		return 0, err
	}
	var address unix.Sockaddr
	if e := control.Control(func(fd uintptr) { address, err = unix.Getsockname(int(fd)) }); e != nil {
		return 0, e
	}
	if a, ok := address.(*unix.SockaddrNetlink); ok {
		port = a.Pid
	}
	return port, err
}

// generation returns the number of the present ruleset. Every transaction in
// the namespace increases it. The error is that of netlink.
func (c *connection) generation() (uint32, error) {
	answers, err := c.raw.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN,
			Flags: netlink.Request,
		},
		Data: make([]byte, 4),
	})
	if err != nil {
		return 0, err
	}
	const header = 4 // struct nfgenmsg
	for _, answer := range answers {
		if len(answer.Data) < header {
			continue
		}
		for kind, value := range kernel.NetlinkAttributes(answer.Data[header:]) {
			if kind == unix.NFTA_GEN_ID && len(value) == 4 {
				return binary.BigEndian.Uint32(value), nil
			}
		}
	}
	return 0, fmt.Errorf("no generation in %d answers", len(answers))
}
