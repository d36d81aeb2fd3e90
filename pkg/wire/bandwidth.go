package wire

import (
	"math"
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// Bandwidth is what a wire may carry. A direction without a rate is not held.
type Bandwidth struct {
	Ingress *Rate `json:"ingress,omitempty"` // towards the pod
	Egress  *Rate `json:"egress,omitempty"`  // from the pod
	// Shaped are the only networks at the other end that the rates are for, Unshaped
	// those that they are not for; at most one of them is not empty.
	Shaped   []netip.Prefix `json:"shaped,omitempty"`
	Unshaped []netip.Prefix `json:"unshaped,omitempty"`
}

// Rate is what one direction is held to.
type Rate struct {
	BitsPerSecond uint64 `json:"rate"` // 8 or more
	// BurstBits may pass at once after a silence; 0 means as much as the rate needs.
	BurstBits uint64 `json:"burst,omitempty"`
}

// MaxBurstBits is the largest burst that the kernel can count: 32 bits of bytes.
const MaxBurstBits = math.MaxUint32*8 - 1

const (
	// latencyMilliseconds is how long what waits may wait, beside the burst; as with
	// the CNI project's plugin bandwidth.
	latencyMilliseconds = 25
	// burstMilliseconds of the rate are the burst where nobody has said one: enough
	// for the kernel's timers to be late.
	burstMilliseconds = 10
	// leastBurst is the same at low rates: some 20 packets.
	leastBurst = 32 << 10
	// linkHeader is what a packet costs beside the MTU.
	linkHeader = 14
)

// shapers are the objects that hold a wire to its bandwidth.
func (w Wire) shapers() []kernel.Object {
	b := w.Bandwidth
	if b == nil {
		return nil
	}
	var all []kernel.Object
	for _, d := range []struct {
		rate *Rate
		side kernel.Side
		link string
	}{
		{b.Ingress, kernel.Host, w.Host.Name}, {b.Egress, kernel.Pod, w.Pod.Name},
	} {
		if d.rate == nil {
			continue
		}
		burst := d.rate.burst(w.MTU)
		all = append(all, kernel.Shaper{
			Side: d.side, Link: d.link, Rate: d.rate.BitsPerSecond, Burst: burst, Limit: d.rate.limit(burst),
			Shaped: b.Shaped, Unshaped: b.Unshaped,
		})
	}
	return all
}

// burst is in bytes. One that holds no packet would let none pass, so it holds one.
func (r Rate) burst(mtu int) uint32 {
	bytes := r.BurstBits / 8
	if r.BurstBits == 0 {
		bytes = max(r.BitsPerSecond/8/1000*burstMilliseconds, leastBurst)
	}
	return uint32(min(max(bytes, uint64(mtu+linkHeader)), math.MaxUint32))
}

// limit is how much may wait, in bytes.
func (r Rate) limit(burst uint32) uint32 {
	waiting := r.BitsPerSecond / 8 / 1000 * latencyMilliseconds
	return uint32(min(waiting+uint64(burst), math.MaxUint32))
}
