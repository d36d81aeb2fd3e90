package agent

import (
	"cmp"
	"fmt"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// deviceAuto is --pod-device where flatnetd decides. It asks the kernel once: netkit is no
// module, so that a kernel has it from its boot or not at all.
const deviceAuto = "auto"

// optional are the parts that the node has only where the kernel has what they need.
func (c Config) optional() []requirements.Part {
	if c.PodDevice == deviceAuto {
		return []requirements.Part{requirements.Netkit}
	}
	return nil
}

// podDevice is what interfaces of new pods are to be; because says why it is not netkit
// where that would have been taken.
func (o ownNetwork) podDevice() (device kernel.Device, because string) {
	if o.config.PodDevice != deviceAuto {
		return cmp.Or(kernel.Device(o.config.PodDevice), kernel.Veth), ""
	}
	switch r := o.Optional; {
	case len(r.Missing) > 0:
		return kernel.Veth, fmt.Sprintf("kernel %s has no %s", r.Release, r.Missing[0].What())
	case len(r.Unknown) > 0:
		return kernel.Veth, r.Unknown[0].Error()
	}
	return kernel.Netkit, ""
}

// PodDevice is what interfaces of pods are.
type PodDevice struct {
	New     kernel.Device `json:"new"`               // of pods that are attached from now on
	Because string        `json:"because,omitempty"` // why it is not what auto would take
	Veth    int           `json:"veth"`              // how many there are
	Netkit  int           `json:"netkit"`
}

// count counts the interfaces of pods by what they are.
func (d *PodDevice) count(records []attachment.Record) {
	seen := map[attachment.Key]bool{}
	for _, r := range records {
		switch {
		case seen[r.Key]: // a record that is being replaced is there twice
		case r.Wire.Device == kernel.Netkit:
			d.Netkit++
		default:
			d.Veth++
		}
		seen[r.Key] = true
	}
}

// rows are for people, who have to know of it only where there is more than veth.
func (d PodDevice) rows() []feature.Row {
	if d.New != kernel.Netkit && d.Because == "" && d.Netkit == 0 {
		return nil
	}
	text := d.New.String() + " for new pods"
	if d.Because != "" {
		text += ", because " + d.Because
	}
	text += fmt.Sprintf("; %d veth, %d netkit", d.Veth, d.Netkit)
	return []feature.Row{{Name: "pods' interfaces", Value: text}}
}
