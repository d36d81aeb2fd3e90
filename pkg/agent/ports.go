package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/plugin"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// hostPorts is the feature that keeps ports of the node leading to the pods that asked
// for them, as the plugin made them.
type hostPorts struct {
	ownNetwork
	plugin *plugin.Plugin
	table  *ports.Table
	task   *feature.Task
	look   *feature.Task // for what Services hide

	refused []ports.Refused // that could not be given back
	hidden  []hiddenPort
}

// hiddenPort is one that a Service has as well, which wins.
type hiddenPort struct {
	ports.Taken
	service string
}

func newHostPorts(c Config, s *feature.Shared) *hostPorts {
	f := &hostPorts{ownNetwork: ownNetwork{s, c}, plugin: &plugin.Plugin{Sysctls: c.SysctlDir}, table: &ports.Table{}}
	f.task = &feature.Task{
		Name: "host ports", Run: s.OncePlanned(f.restore), Gap: 300 * time.Millisecond, Every: c.Resync,
		Advice: "look at `nft list table inet flatnet-ports` and at who else changes it (`nft monitor`)",
	}
	f.look = &feature.Task{
		Name: "host ports of Services", Run: s.OncePlanned(f.findHidden), Gap: 2 * time.Second, Every: c.Resync,
		Advice: "look at `nft list table inet flatnet-ports` and at the tables flatnet-services; ports that a Service has as well may not be said",
	}
	return f
}

func (f *hostPorts) feature() feature.Feature {
	return feature.Feature{
		Tasks: []*feature.Task{f.task, f.look}, Follow: f.follow, Problems: f.problems,
		Tables: func() (nft.Listener, error) {
			return listeners{ports.Watcher(f.task.Ask), service.Watcher(f.look.Ask)}, nil
		},
		Status: func(context.Context) feature.Part { return f.status().part() },
		Gauges: []feature.Gauge{{
			Description: prometheus.NewDesc("flatnet_host_ports", "Ports of the node that lead to pods; one of both families counts twice.", nil, nil),
			Read: func(_ context.Context, tell func(float64, ...string)) {
				if taken, err := f.taken(); err == nil {
					tell(float64(len(taken)))
				}
			},
		}},
		Repairs: []string{"ports"},
		Cleanup: feature.Removal{Do: f.remove},
	}
}

func (f *hostPorts) follow(n feature.News) error {
	if n == feature.KernelChanged || n == feature.FabricMade {
		f.task.Soon()
	}
	return nil
}

// restore mends what somebody has taken from the ports.
func (f *hostPorts) restore(ctx context.Context) error {
	if !f.TablesPossible() {
		return nil
	}
	r, err := f.request("RESTORE")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	done, err := f.plugin.RestorePorts(ctx, r)
	for _, repair := range done.Repairs {
		f.Repaired("ports", 1)
		f.Log.Warn("repaired what somebody had changed of the pods' ports of the node", "found", repair)
	}
	if err != nil {
		return fmt.Errorf("restoring host ports: %w", err)
	}
	f.refused = done.Refused
	f.look.Soon()
	return nil
}

// taken are the ports that lead to pods now.
func (f *hostPorts) taken() ([]ports.Taken, error) {
	if !f.TablesPossible() {
		return nil, nil
	}
	return f.table.List()
}

// findHidden notes the ports that lead to a Service, since Services come first: a
// NodePort, or an external address of the node, of the same number.
func (f *hostPorts) findHidden(context.Context) error {
	var hidden []hiddenPort
	if taken, err := f.taken(); err != nil {
		return err
	} else if f.Services && len(taken) > 0 {
		if hidden, err = f.hiddenOf(taken); err != nil {
			return err
		}
	}
	f.hidden = hidden
	return nil
}

func (f *hostPorts) hiddenOf(taken []ports.Taken) (hidden []hiddenPort, err error) {
	c, err := nft.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, t := range taken {
		addresses := []netip.Addr{t.HostIP}
		if t.HostIP.IsUnspecified() {
			addresses = slices.DeleteFunc(f.Underlay.Addresses(), func(a netip.Addr) bool { return a.Is6() != t.HostIP.Is6() })
		}
		for _, a := range addresses {
			number, _ := ports.ProtocolNumber(t.Protocol)
			name, err := service.At(c, a, number, t.HostPort)
			if err != nil {
				return nil, err
			}
			if name != "" {
				t.HostIP = a
				hidden = append(hidden, hiddenPort{t, name})
			}
		}
	}
	return hidden, nil
}

func (f *hostPorts) problems() (all []problem.Problem) {
	for _, r := range f.refused {
		var conflict *ports.Conflict
		advice := ""
		if errors.As(r.Err, &conflict) {
			advice = "delete one of the two pods, or give one of them another hostPort or hostIP"
		}
		all = append(all, problem.HostPort.Of(problem.Facts{
			Node: f.config.NodeName, Object: "host ports of pod " + r.Pod, Reason: r.Err.Error(), Advice: advice,
		}))
	}
	for _, t := range f.hidden {
		all = append(all, problem.HostPort.Of(problem.Facts{
			Node: f.config.NodeName, Object: fmt.Sprintf("host port %s of pod %s", t.Mapping, t.Pod),
			Reason: fmt.Sprintf("Service %s has the same port of that address, and Services come first: the pod is not reached there", t.service),
			Advice: "give the pod another hostPort, or the Service another nodePort",
		}))
	}
	return all
}

// HostPortsStatus is which ports of the node lead to pods.
type HostPortsStatus struct {
	HostPorts []HostPort `json:"hostPorts"`
}

// HostPort is a port of the node that leads to a pod. One of all addresses has 0.0.0.0
// or ::, and is there once for each.
type HostPort struct {
	HostIP   netip.Addr     `json:"hostIP"`
	HostPort uint16         `json:"hostPort"`
	Protocol string         `json:"protocol"`
	Pod      string         `json:"pod"`
	LeadsTo  netip.AddrPort `json:"leadsTo"`
}

func (f *hostPorts) status() HostPortsStatus {
	s := HostPortsStatus{HostPorts: []HostPort{}}
	taken, err := f.taken()
	if err != nil {
		return s
	}
	for _, t := range taken {
		s.HostPorts = append(s.HostPorts, HostPort{t.HostIP, t.HostPort, t.Protocol, t.Pod, t.Leads})
	}
	return s
}

func (s HostPortsStatus) part() feature.Part {
	part := feature.Part{Document: s}
	if len(s.HostPorts) == 0 {
		return part
	}
	type port struct {
		pod, protocol string
		number        uint16
	}
	pods, numbers := map[string]bool{}, map[port]bool{}
	for _, p := range s.HostPorts {
		pods[p.Pod], numbers[port{p.Pod, p.Protocol, p.HostPort}] = true, true
	}
	part.Rows = []feature.Row{{Name: "host ports", Value: fmt.Sprintf("%d of %d pods", len(numbers), len(pods))}}
	part.Table = s.print
	return part
}

func (s HostPortsStatus) print(w io.Writer, _ time.Time) {
	const most = 40
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "HOST PORT\tADDRESS\tPOD\tLEADS TO")
	for _, p := range s.HostPorts[:min(most, len(s.HostPorts))] {
		fmt.Fprintf(table, "%d/%s\t%s\t%s\t%s\n", p.HostPort, p.Protocol, p.HostIP, cmp.Or(p.Pod, "-"), p.LeadsTo)
	}
	table.Flush()
	if more := len(s.HostPorts) - most; more > 0 {
		fmt.Fprintf(w, "… and %d more: flatnetd status -o json\n", more)
	}
}

func (f *hostPorts) remove(context.Context) (removed []string, err error) {
	if !(requirements.Running{}).HasNftables() {
		return nil, nil
	}
	was, err := f.table.RemoveAll()
	if was != "" {
		removed = append(removed, was)
	}
	return removed, err
}
