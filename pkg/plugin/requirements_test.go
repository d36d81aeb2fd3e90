package plugin

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/netconf"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// What is asked of the kernel when it has refused something is what the pod needs.
func TestPartsOfAPod(t *testing.T) {
	rate := &wire.Rate{BitsPerSecond: 1_000_000}
	for _, c := range []struct {
		config netconf.Config
		want   string
	}{
		{netconf.Config{}, "[pods]"},
		{netconf.Config{IPMasq: true}, "[pods ipMasq]"},
		{netconf.Config{Ports: ports.Wanted{Mappings: []ports.Mapping{{HostPort: 1, ContainerPort: 1, Protocol: "tcp"}}}}, "[pods host ports]"},
		{netconf.Config{Bandwidth: &wire.Bandwidth{Ingress: rate}}, "[pods rates]"},
		{netconf.Config{Bandwidth: &wire.Bandwidth{Egress: rate, Unshaped: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}, "[pods rates of networks]"},
	} {
		j := &job{config: &c.config}
		if got := fmt.Sprint(j.parts()); got != c.want {
			t.Errorf("%s instead of %s", got, c.want)
		}
	}
}
