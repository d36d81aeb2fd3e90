package policy

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/nflog"
)

// logRetry is the pause until a group of the log is tried again that somebody else
// reads.
const logRetry = 30 * time.Second

// listen waits for packets that were refused, until ctx ends.
func (c *Controller) listen(ctx context.Context) {
	for {
		err := nflog.Run(ctx, logGroup, func(p nflog.Packet) {
			select {
			case c.dropped <- p:
			default: // there are enough to be read
			}
		})
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("what policies refuse cannot be logged, trying again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(logRetry):
		}
	}
}

// logDrop logs a packet that was refused, with pods' names where they are known.
func (c *Controller) logDrop(p nflog.Packet) {
	c.log.Info("refused by policies", "direction", p.Prefix, "from", c.name(p.Source.Addr()), "to", c.name(p.Destination.Addr()),
		"protocol", Protocol(p.Protocol).String(), "port", p.Destination.Port(), "source", p.Source.String(), "destination", p.Destination.String())
}

// name is that of the pod that has an address, or the address.
func (c *Controller) name(a netip.Addr) string {
	if name, here := c.world.holder[a]; here {
		return name.String()
	}
	if p := c.world.owner(a); p != nil {
		return fmt.Sprint(p.Name)
	}
	return a.String()
}
