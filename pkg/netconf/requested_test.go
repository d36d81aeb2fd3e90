package netconf

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// Whatever a runtime asks for of ports, what comes out of it can be given, and means the
// same when it is asked for again.
func FuzzPorts(f *testing.F) {
	f.Add(`[{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}, {"hostPort": 8080, "containerPort": 80}]`, `true`)
	f.Add(`[{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "::ffff:192.0.2.1"}, {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "0.0.0.0"}]`, `false, "masqAll": true`)
	f.Add(`[{"hostPort": 65535, "containerPort": 1, "protocol": "sctp", "hostIP": "fe80::1%eth0"}, {"hostPort": -1}]`, `null, "markMasqBit": 31, "backend": "iptables"`)
	f.Fuzz(func(t *testing.T, list, snat string) {
		text := `{"snat": ` + snat + `, "runtimeConfig": {"portMappings": ` + list + `}, ` + ranges + `}`
		c, _, err := parseText(text, "")
		typedOrNone(t, err)
		if err != nil {
			return
		}
		w := c.Ports
		for i, m := range w.Mappings {
			if _, known := ports.ProtocolNumber(m.Protocol); !known || m.HostPort == 0 || m.ContainerPort == 0 ||
				m.HostIP.Zone() != "" || m.HostIP.Is4In6() || m.HostIP.IsMulticast() {
				t.Errorf("mapping %+v", m)
			}
			for _, o := range w.Mappings[:i] {
				if m == o || m.Overlaps(o) != o.Overlaps(m) || m.Overlaps(o) && m.ContainerPort != o.ContainerPort {
					t.Errorf("%+v and %+v", m, o)
				}
			}
		}
		for _, address := range []string{"10.1.0.2", "fd00::2"} {
			of := []netip.Addr{netip.MustParseAddr(address)}
			nowhere := w.Without(of)
			for _, m := range nowhere {
				if m.HostIP.Is6() == of[0].Is6() || !slices.Contains(w.Mappings, m) {
					t.Errorf("%+v leads nowhere, though the pod has %s", m, address)
				}
			}
			if w.Localnet(of) && (of[0].Is6() || len(nowhere) == len(w.Mappings)) {
				t.Errorf("%v: localnet for %s", w.Mappings, address)
			}
		}
	})
}

// Whatever is asked for of rates, what comes out of it is something that the kernel can
// count, and that can be written down.
func FuzzBandwidth(f *testing.F) {
	f.Add(`"ingressRate": 8, "ingressBurst": 8`, `"egressRate": 16, "egressBurst": 9, "unshapedSubnets": ["10.1.2.3/8"]`)
	f.Add(`"egressRate": 0`, `"ingressRate": 1000000, "ingressBurst": 4294967295, "egressRate": 18446744073709551615, "egressBurst": 34359738360`)
	f.Add(`"ingressRate": 18446744073709551615, "ingressBurst": 34359738359, "shapedSubnets": ["::/0", "0.0.0.0/32"]`, `"ingressBurst": 18446744073709551615`)
	f.Fuzz(func(t *testing.T, configured, asked string) {
		if configured != "" {
			configured += ", "
		}
		c, _, err := parseText(`{`+configured+`"runtimeConfig": {"bandwidth": {`+asked+`}}, `+ranges+`}`, "")
		typedOrNone(t, err)
		if err != nil || c.Bandwidth == nil {
			return
		}
		b := c.Bandwidth
		if b.Ingress == nil && b.Egress == nil || len(b.Shaped) > 0 && len(b.Unshaped) > 0 || len(b.Shaped)+len(b.Unshaped) > maxSubnets {
			t.Errorf("%+v", b)
		}
		for _, rate := range []*wire.Rate{b.Ingress, b.Egress} {
			if rate != nil && (rate.BitsPerSecond < 8 || rate.BurstBits > wire.MaxBurstBits) {
				t.Errorf("rate %+v", rate)
			}
		}
		for _, network := range append(slices.Clone(b.Shaped), b.Unshaped...) {
			if !network.IsValid() || network != network.Masked() || network.Addr().Is4In6() {
				t.Errorf("network %s", network)
			}
		}
		holds(t, b)
	})
}

// holds fails where the kernel would be given what lets no packet pass, or where a record
// would be read otherwise than it was written.
func holds(t *testing.T, b *wire.Bandwidth) {
	t.Helper()
	const mtu, linkHeader = 1500, 14
	w := wire.Wire{MTU: mtu, Bandwidth: b}
	n := 0
	for _, object := range w.Objects() {
		s, is := object.(kernel.Shaper)
		if !is {
			continue
		}
		n++
		if s.Rate < 8 || s.Burst < mtu+linkHeader || s.Limit < s.Burst {
			t.Errorf("%s", s)
		}
	}
	if want := len(slices.DeleteFunc([]*wire.Rate{b.Ingress, b.Egress}, func(r *wire.Rate) bool { return r == nil })); n != want {
		t.Errorf("%d shapers for %d rates", n, want)
	}
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	read := new(wire.Bandwidth)
	if err := json.Unmarshal(raw, read); err != nil || !reflect.DeepEqual(read, b) {
		t.Errorf("%s is read as %+v: %v", raw, read, err)
	}
}
