package plugin

import (
	"errors"
	"fmt"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/namespace"
)

// Fault is one thing that is wrong with an attachment.
type Fault struct {
	Word   string `json:"word"`   // for a table: "route missing"
	Reason string `json:"reason"` // what was found, and what was expected
}

// beingMade is the word of an attachment that ADD has not finished, or that lost
// something in its first minute.
const beingMade = "being made"

// Faults compares the host's part of a recorded attachment with the kernel, and asks
// whether its sandbox still exists. It changes nothing. What is in the pod's own
// namespace is the pod's affair: CHECK looks there. It fails where the kernel cannot
// be asked.
func Faults(k *kernel.Netlink, living *namespace.Living, record attachment.Record) (faults []Fault, err error) {
	s := record.Sandbox
	if living.Gone(s.Path, namespace.Identity{Device: s.Device, Inode: s.Inode}) {
		faults = append(faults, Fault{"sandbox gone", fmt.Sprintf("network namespace %s exists no more: the runtime's DEL is missing", s.Path)})
	}
	name := record.Wire.Host.Name
	found, exists, err := k.FindLink(kernel.Host, name)
	switch {
	case err != nil:
		return nil, err
	case exists && !record.Owns(found.Alias):
		return append(faults, Fault{"interface is another's", fmt.Sprintf("interface %s has the alias %q", name, found.Alias)}), nil
	case !finished(k, record):
		return append(faults, Fault{beingMade, "ADD began less than a minute ago, and not all is there: ask again later"}), nil
	case !exists:
		return append(faults, Fault{"interface missing", fmt.Sprintf("the node has no interface %s", name)}), nil
	}
	for _, object := range hostObjects(record) {
		err := k.Inspect(object)
		var difference *kernel.Difference
		if errors.As(err, &difference) {
			faults = append(faults, Fault{wordOf(object), difference.Error()})
		} else if err != nil {
			return nil, err
		}
	}
	return faults, nil
}

// wordOf is the word for an object of the host that is not as it should be.
func wordOf(object kernel.Object) string {
	switch object.(type) {
	case kernel.Up:
		return "interface down"
	case kernel.Route:
		return "route missing"
	case kernel.Address:
		return "address missing"
	case kernel.Shaper:
		return "rate missing"
	}
	return "settings changed"
}
