package page

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// told is what the agents say about something.
type told struct {
	About About `json:"about"`
	// Names are what rows refer to by number: those of nodes, for peers.
	Names []string `json:"names,omitempty"`
	Nodes []row    `json:"nodes"`
}

// row is what one agent says, or why it does not.
type row struct {
	Node  string `json:"node"`
	Fault string `json:"fault,omitempty"`
	Says  any    `json:"says,omitempty"`
}

// condenser makes of what an agent says what the page needs of it: of 300 nodes with 300
// peers each, the full answers would be forty megabytes.
// single says that no other node is asked at the same time.
type condenser func(raw []byte, names *names, single bool) (any, error)

// condensers are all of them. Nobody writes to it.
var condensers = map[About]condenser{Peers: condensePeers, Pods: condensePods, Services: asItIs, Policies: asItIs, BGP: asItIs, Balancers: asItIs, Flows: asItIs}

// gather asks nodes, some at a time.
func (s *Server) gather(ctx context.Context, nodes []string, about About, pod string, condense condenser, single bool) told {
	nodes = slices.Sorted(slices.Values(nodes))
	all := told{About: about, Nodes: make([]row, len(nodes))}
	known := &names{}
	s.mu.Lock()
	for _, n := range s.nodes {
		known.add(n.Name)
	}
	s.mu.Unlock()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(max(1, s.Parallel), len(nodes)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(nodes) {
					return
				}
				all.Nodes[i] = s.askOne(ctx, nodes[i], about, pod, func(raw []byte) (any, error) { return condense(raw, known, single) })
			}
		})
	}
	workers.Wait()
	if about == Peers {
		all.Names = known.all
	}
	return all
}

func (s *Server) askOne(ctx context.Context, node string, about About, pod string, condense func([]byte) (any, error)) row {
	raw, err := s.Source.Ask(ctx, node, about, pod)
	if err != nil {
		return row{Node: node, Fault: err.Error()}
	}
	says, err := condense(raw)
	if err != nil {
		return row{Node: node, Fault: fmt.Sprintf("reading flatnetd's answer: %s", err)}
	}
	return row{Node: node, Says: says}
}

// names numbers names.
type names struct {
	mu  sync.Mutex
	all []string
	at  map[string]int
}

// add returns the number of a name.
func (n *names) add(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i, is := n.at[name]; is {
		return i
	}
	if n.at == nil {
		n.at = map[string]int{}
	}
	n.at[name] = len(n.all)
	n.all = append(n.all, name)
	return len(n.all) - 1
}

// pod is an attachment, for the page's table.
type pod struct {
	Pod       string   `json:"pod"`
	Addresses []string `json:"addresses"`
	Interface string   `json:"interface"`
	Ports     []string `json:"ports,omitempty"`
	Ingress   uint64   `json:"ingress,omitempty"` // bits per second
	Egress    uint64   `json:"egress,omitempty"`
	Since     string   `json:"since"`
	Wrong     []string `json:"wrong,omitempty"` // what, and why
}

func condensePods(raw []byte, _ *names, _ bool) (any, error) {
	type rate struct {
		BitsPerSecond uint64 `json:"rate"`
	}
	var said struct {
		Pods []struct {
			Pod           string   `json:"pod"`
			ContainerID   string   `json:"containerID"`
			Addresses     []string `json:"addresses"`
			HostInterface string   `json:"hostInterface"`
			HostPorts     []struct {
				HostPort, ContainerPort int
				Protocol, HostIP        string
			} `json:"hostPorts"`
			Bandwidth struct{ Ingress, Egress rate }  `json:"bandwidth"`
			Since     string                          `json:"since"`
			Faults    []struct{ Word, Reason string } `json:"faults"`
		} `json:"pods"`
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return nil, err
	}
	all := []pod{}
	for _, p := range said.Pods {
		one := pod{
			Pod: cmp.Or(p.Pod, p.ContainerID), Addresses: p.Addresses, Interface: p.HostInterface,
			Ingress: p.Bandwidth.Ingress.BitsPerSecond, Egress: p.Bandwidth.Egress.BitsPerSecond, Since: p.Since,
		}
		for _, m := range p.HostPorts {
			at := fmt.Sprintf("%d/%s", m.HostPort, m.Protocol)
			if m.HostIP != "" {
				at = m.HostIP + ":" + at
				if strings.Contains(m.HostIP, ":") {
					at = "[" + m.HostIP + "]" + strings.TrimPrefix(at, m.HostIP)
				}
			}
			one.Ports = append(one.Ports, fmt.Sprintf("%s → %d", at, m.ContainerPort))
		}
		for _, f := range p.Faults {
			one.Wrong = append(one.Wrong, f.Word+": "+f.Reason)
		}
		all = append(all, one)
	}
	return all, nil
}

// asItIs keeps all of what it says: of Services, addresses and flows one node is asked at a
// time, of policies few, and of BGP a line for each peer.
func asItIs(raw []byte, _ *names, _ bool) (any, error) {
	var all json.RawMessage
	err := json.Unmarshal(raw, &all)
	return all, err
}
