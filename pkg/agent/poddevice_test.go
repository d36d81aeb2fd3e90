package agent

import (
	"fmt"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// kernelMute cannot be asked for anything.
type kernelMute struct{ kernelWithout }

func (kernelMute) Probe(all []requirements.Feature) []error {
	results := make([]error, len(all))
	for i := range results {
		results[i] = fmt.Errorf("operation not permitted")
	}
	return results
}

// New pods have what the flag says; with auto netkit where the kernel is known to have it.
func TestPodDevice(t *testing.T) {
	for _, c := range []struct {
		flag string
		on   requirements.Kernel
		want string // device, and why not netkit
		row  string
	}{
		{"", kernelWithout{}, "veth", ""},
		{"veth", kernelWithout{}, "veth", ""},
		{"netkit", kernelWithout{}, "netkit", "netkit for new pods; 2 veth, 0 netkit"},
		{"netkit", kernelWithout{"netkit"}, "netkit", "netkit for new pods; 2 veth, 0 netkit"}, // and pods are refused
		{"auto", kernelWithout{}, "netkit", "netkit for new pods; 2 veth, 0 netkit"},
		{"auto", kernelWithout{"netkit"}, "veth: kernel 6.1.0-9 has no netkit (NETKIT)", "veth for new pods, because kernel 6.1.0-9 has no netkit (NETKIT); 2 veth, 0 netkit"},
		{"auto", kernelMute{}, "veth: asking the kernel for netkit: operation not permitted", "veth for new pods, because asking the kernel for netkit: operation not permitted; 2 veth, 0 netkit"},
	} {
		config := Config{PodDevice: c.flag}
		s := &feature.Shared{Facts: feature.Facts{Optional: requirements.Check(c.on, config.optional()...)}}
		device, because := ownNetwork{s, config}.podDevice()
		got := device.String()
		if because != "" {
			got += ": " + because
		}
		if got != c.want {
			t.Errorf("--pod-device %q: got %q, want %q", c.flag, got, c.want)
		}
		d := PodDevice{New: device, Because: because}
		d.count([]attachment.Record{{Key: attachment.Key{ContainerID: "a"}}, {Key: attachment.Key{ContainerID: "a"}}, {Key: attachment.Key{ContainerID: "b"}, Wire: wire.Wire{Device: kernel.Veth}}})
		row := ""
		for _, r := range d.rows() {
			row += r.Value
		}
		if row != c.row {
			t.Errorf("--pod-device %q: the status says %q, want %q", c.flag, row, c.row)
		}
	}
	d := PodDevice{New: kernel.Veth}
	d.count([]attachment.Record{{Wire: wire.Wire{Device: kernel.Netkit}}})
	if len(d.rows()) != 1 {
		t.Error("a pod that has kept netkit is not in the status")
	}
}
