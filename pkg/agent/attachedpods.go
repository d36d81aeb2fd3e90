package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/namespace"
	"github.com/flatnet-cni/flatnet/pkg/plugin"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// AttachedPods is what `flatnetd status pods` prints.
type AttachedPods struct {
	Pods []AttachedPod `json:"pods"` // sorted by name
}

// AttachedPod is one attachment; a pod with several interfaces has as many.
type AttachedPod struct {
	Pod string `json:"pod,omitempty"` // namespace/name; "" where the runtime has not said it
	attachment.Key
	Addresses     []netip.Addr    `json:"addresses"`
	HostInterface string          `json:"hostInterface"`
	Device        kernel.Device   `json:"device"` // what both ends are
	HostPorts     []ports.Mapping `json:"hostPorts,omitempty"`
	Bandwidth     *wire.Bandwidth `json:"bandwidth,omitempty"` // nil: no rate
	Since         time.Time       `json:"since"`
	Faults        []plugin.Fault  `json:"faults,omitempty"`
}

// name is the pod's, or else the container's.
func (p AttachedPod) name() string { return cmp.Or(p.Pod, p.ContainerID) }

// ListAttachedPods reads what the plugin has recorded below a state directory, and
// compares it with the kernel. No flatnetd has to run. sysctls is where sysctls are
// files, as --sysctl-dir says.
func ListAttachedPods(stateDir, sysctls string) (all AttachedPods, err error) {
	all.Pods = []AttachedPod{}
	records, err := attachment.OpenDirectory(stateDir).List("")
	if errors.Is(err, fs.ErrPermission) {
		return all, fmt.Errorf("%w: root may read it", err)
	}
	if err != nil || len(records) == 0 {
		return all, err
	}
	k, err := kernel.NewNetlink(nil)
	if err != nil {
		return all, err
	}
	defer k.Close()
	k.Sysctls = sysctls
	living := &namespace.Living{}
	seen := map[attachment.Key]bool{}
	for _, r := range records {
		if seen[r.Key] {
			continue // a record that is being replaced is there twice
		}
		seen[r.Key] = true
		faults, err := plugin.Faults(k, living, r)
		if err != nil {
			return all, fmt.Errorf("looking at the attachment %s of pod %s: %w", r.Key, r.Pod, err)
		}
		all.Pods = append(all.Pods, AttachedPod{
			Pod: r.Pod, Key: r.Key, Addresses: r.Wire.Addresses, HostInterface: r.Wire.Host.Name, Device: cmp.Or(r.Wire.Device, kernel.Veth),
			HostPorts: r.Ports.Mappings, Bandwidth: r.Wire.Bandwidth, Since: r.Since, Faults: faults,
		})
	}
	slices.SortFunc(all.Pods, func(a, b AttachedPod) int {
		return cmp.Or(cmp.Compare(a.name(), b.name()), cmp.Compare(a.Network, b.Network),
			cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.ContainerID, b.ContainerID))
	})
	return all, nil
}

// podColumns are those of the table, with what each says of a pod. Nobody writes to it.
var podColumns = []struct {
	title string
	of    func(p AttachedPod, now time.Time) string
}{
	{"POD", func(p AttachedPod, _ time.Time) string { return p.name() }},
	{"ADDRESSES", func(p AttachedPod, _ time.Time) string { return list(p.Addresses) }},
	{"INTERFACE", func(p AttachedPod, _ time.Time) string { return p.interfaceWords() }},
	{"PORTS", func(p AttachedPod, _ time.Time) string { return portWords(p.HostPorts) }},
	{"RATES", func(p AttachedPod, _ time.Time) string { return rates(p.Bandwidth) }},
	{"SINCE", func(p AttachedPod, now time.Time) string { return duration.HumanDuration(now.Sub(p.Since)) }},
	{"WRONG", func(p AttachedPod, _ time.Time) string { return words(p.Faults) }},
}

// Print writes it for people, as a table and what is wrong below it.
func (s AttachedPods) Print(w io.Writer, now time.Time) {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	var titles []string
	for _, c := range podColumns {
		titles = append(titles, c.title)
	}
	fmt.Fprintln(table, strings.Join(titles, "\t"))
	for _, p := range s.Pods {
		var cells []string
		for _, c := range podColumns {
			cells = append(cells, c.of(p, now))
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	table.Flush()
	separator := "\n"
	for _, p := range s.Pods {
		for _, f := range p.Faults {
			fmt.Fprintf(w, "%s%s: %s\n", separator, p.name(), f.Reason)
			separator = ""
		}
	}
}

// interfaceWords are the interface on the node, and what it is where its name does not say it.
func (p AttachedPod) interfaceWords() string {
	if p.Device == kernel.Netkit {
		return p.HostInterface + " (netkit)"
	}
	return p.HostInterface
}

// portWords are the node's ports that lead to the pod, "8080/tcp".
func portWords(all []ports.Mapping) string {
	var words []string
	for _, m := range all {
		words = append(words, m.String())
	}
	return cmp.Or(strings.Join(words, " "), "-")
}

// rates are what the pod may receive and send, in bits per second, as in the
// annotations that they come from: "10M/500k".
func rates(b *wire.Bandwidth) string {
	if b == nil {
		return "-"
	}
	text := func(r *wire.Rate) string {
		if r == nil {
			return "-"
		}
		return resource.NewQuantity(int64(r.BitsPerSecond), resource.DecimalSI).String()
	}
	return text(b.Ingress) + "/" + text(b.Egress)
}

// words are what is wrong, each once.
func words(faults []plugin.Fault) string {
	var all []string
	for _, f := range faults {
		if !slices.Contains(all, f.Word) {
			all = append(all, f.Word)
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ", ")
}
