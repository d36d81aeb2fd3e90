package service

import (
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Watcher returns what calls changed when anybody has written to the tables of Services,
// flatnetd's own controller included, and when that may have happened unseen; changed
// must not wait.
func Watcher(changed func()) nft.Listener {
	return &nft.Watcher{Tables: []nft.ID{ipv4.table(), ipv6.table()}, Own: func() uint32 { return 0 }, Changed: changed}
}

// At returns the name of the Service that has an address, protocol and port in the
// kernel's tables; "" where none has.
// Equivalent to: `nft get element ip flatnet-services services { ADDRESS . PROTOCOL . PORT }`.
func At(c *nft.Conn, address netip.Addr, protocol uint8, port uint16) (name string, err error) {
	f := familyOf(address)
	front := Front{Address: address, Protocol: Protocol(protocol), Port: port}
	e, found, err := c.Element(f.table(), setServices.declared(f), string(front.key()))
	if err != nil || !found {
		return "", err
	}
	if e.Comment == "" {
		return "unknown", nil
	}
	return e.Comment, nil
}
