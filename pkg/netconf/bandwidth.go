package netconf

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strconv"

	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// bandwidthKeys are those of the CNI project's plugin bandwidth, and of the capability
// of that name: rates in bits per second, bursts in bits.
type bandwidthKeys struct {
	IngressRate     json.RawMessage `json:"ingressRate"`
	IngressBurst    json.RawMessage `json:"ingressBurst"`
	EgressRate      json.RawMessage `json:"egressRate"`
	EgressBurst     json.RawMessage `json:"egressBurst"`
	ShapedSubnets   []string        `json:"shapedSubnets"`
	UnshapedSubnets []string        `json:"unshapedSubnets"`
}

// noBurst is the least of the bursts, in bits, that runtimes give where nobody has
// said one, since a pod's annotations have rates only: 2^31-1 is dockershim's, 2^32-1
// containerd's, 2^35-9 CRI-O's. Taken at its word, it lets a quarter of a gigabyte
// and more pass before there is any rate at all.
const noBurst = math.MaxInt32

// ofRuntime is before the fields that the runtime fills in.
const ofRuntime = "runtimeConfig.bandwidth."

// readBandwidth reads what the pod's wire may carry. In each direction, what the
// configuration says, be it 0, comes before what the pod asks for, as with the plugin
// bandwidth: it is the administrator's word.
func (c *Config) readBandwidth(d *document, _ *Arguments) error {
	if c.isIPAM {
		return nil
	}
	requested := bandwidthKeys{}
	if d.RuntimeConfig.Bandwidth != nil {
		requested = *d.RuntimeConfig.Bandwidth
	}
	var b wire.Bandwidth
	for _, direction := range []struct {
		name                                       string
		to                                         **wire.Rate
		rate, burst, requestedRate, requestedBurst json.RawMessage
	}{
		{"ingress", &b.Ingress, d.IngressRate, d.IngressBurst, requested.IngressRate, requested.IngressBurst},
		{"egress", &b.Egress, d.EgressRate, d.EgressBurst, requested.EgressRate, requested.EgressBurst},
	} {
		configured, err := readRate("", direction.name, direction.rate, direction.burst, wire.MaxBurstBits)
		if err != nil {
			return err
		}
		asked, err := readRate(ofRuntime, direction.name, direction.requestedRate, direction.requestedBurst, math.MaxUint64)
		if err != nil {
			return err
		}
		if asked != nil && asked.BurstBits >= noBurst {
			asked.BurstBits = 0
		}
		if *direction.to = configured; direction.rate == nil && direction.burst == nil {
			*direction.to = asked
		}
	}
	prefix, keys := "", d.bandwidthKeys
	if len(keys.ShapedSubnets)+len(keys.UnshapedSubnets) == 0 {
		prefix, keys = ofRuntime, requested
	}
	if len(keys.ShapedSubnets) > 0 && len(keys.UnshapedSubnets) > 0 {
		return invalid(prefix+"unshapedSubnets", keys.UnshapedSubnets, "cannot be given together with "+prefix+"shapedSubnets")
	}
	var err error
	if b.Shaped, err = readSubnets(prefix+"shapedSubnets", keys.ShapedSubnets); err != nil {
		return err
	}
	if b.Unshaped, err = readSubnets(prefix+"unshapedSubnets", keys.UnshapedSubnets); err != nil {
		return err
	}
	if b.Ingress != nil || b.Egress != nil {
		c.Bandwidth = &b
	}
	return nil
}

// readRate reads a rate and its burst: both or none.
func readRate(prefix, direction string, rate, burst json.RawMessage, maxBurst uint64) (*wire.Rate, error) {
	rateField, burstField := prefix+direction+"Rate", prefix+direction+"Burst"
	r, ok := number(rate)
	if !ok {
		return nil, invalid(rateField, rate, "must be a whole number of bits per second, or 0 for no limit")
	}
	b, ok := number(burst)
	if !ok {
		return nil, invalid(burstField, burst, "must be a whole number of bits, or 0 without a rate")
	}
	const least = 8 // the kernel counts bytes
	switch {
	case r == 0 && (b == 0 || prefix == ofRuntime && b >= noBurst): // what runtimes send for a pod without a rate
		return nil, nil
	case r < least:
		return nil, invalid(rateField, r, fmt.Sprintf("must be at least %d bits per second where %s is given", least, burstField))
	case b == 0:
		return nil, invalid(burstField, b, fmt.Sprintf("must be given where %s is: bits that may pass at once, for example 1000000", rateField))
	case b > maxBurst:
		return nil, invalid(burstField, b, fmt.Sprintf("must be at most %d bits (4 GB), which is what the kernel can count", maxBurst))
	}
	return &wire.Rate{BitsPerSecond: r, BurstBits: b}, nil
}

// number reads a whole number that is not negative; what is not there is 0.
func number(raw json.RawMessage) (n uint64, ok bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return 0, true
	}
	n, err := strconv.ParseUint(string(raw), 10, 64)
	return n, err == nil
}

// maxSubnets bounds how many filters every packet may have to pass.
const maxSubnets = 256

// readSubnets reads networks. Host bits are dropped, as the plugin bandwidth does.
func readSubnets(field string, texts []string) ([]netip.Prefix, error) {
	if len(texts) > maxSubnets {
		return nil, invalid(field, len(texts), fmt.Sprintf("must be at most %d networks: every packet passes all of them", maxSubnets))
	}
	var all []netip.Prefix
	for i, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil || network.Addr().Is4In6() {
			return nil, invalid(fmt.Sprintf("%s[%d]", field, i), text, "must be a network in CIDR notation, for example 10.0.0.0/8")
		}
		all = append(all, network.Masked())
	}
	return all, nil
}
