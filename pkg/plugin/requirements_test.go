package plugin

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/wire"
	"github.com/flatnet-cni/flatnet/test/poddevice"
)

// What is asked of the kernel when it has refused something is what the pod needs.
func TestPartsOfAPod(t *testing.T) {
	rate := &wire.Rate{BitsPerSecond: 1_000_000}
	for _, c := range []struct {
		config netconf.Config
		want   string
	}{
		{netconf.Config{}, "[pods]"},
		{netconf.Config{PodDevice: kernel.Netkit}, "[pods netkit]"},
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

// Where the kernel has no netkit, ADD and STATUS say so and what to do, and nothing is left.
func TestNetkitThatTheKernelLacks(t *testing.T) {
	if poddevice.Missing() == "" {
		t.Skip("this kernel has netkit; those before Linux 6.12 show it")
	}
	s := newStage(t, "10.1.2.0/24")
	s.config["podDevice"] = poddevice.Netkit
	for verb, want := range map[string]uint{"ADD": cni.CodeKernel, "STATUS": 50} {
		_, err := s.run(call{verb: verb, container: "a", netns: s.lab.Pod("a" + verb).Path})
		if code(err) != want || !strings.Contains(err.Error(), "netkit (NETKIT) is missing") || !strings.Contains(err.Error(), "podDevice") {
			t.Errorf("%s: %v", verb, err)
		}
	}
	s.checkNothingLeft("ADD without netkit")
}
