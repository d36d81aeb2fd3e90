package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

func notThere(err error) bool { return errors.Is(err, unix.ENOENT) }

// Explanation says what decides about a connection at the ends that are on this node.
type Explanation struct {
	From      string     `json:"from"`
	To        string     `json:"to"`
	Port      uint16     `json:"port,omitempty"`
	PortName  string     `json:"portName,omitempty"` // by which it was asked for
	Protocol  string     `json:"protocol"`
	Decisions []Decision `json:"decisions"`
	// Elsewhere says that another node has a say, too.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Notes are what else there is to know: an end that is elsewhere, a pod that is
	// unknown.
	Notes []string `json:"notes,omitempty"`
	// Kernel says whether the kernel's rules are those that the decisions are reckoned
	// from; nil where they have no say.
	Kernel *InKernel `json:"kernel,omitempty"`
}

// Explain says what the policies decide about a connection. The ends are addresses, or
// pods as namespace/name; the port is one of the destination pod's, by its first number
// or by its name.
func (c *Controller) Explain(ctx context.Context, from, to string, port Port) (e Explanation, err error) {
	failed := c.do(ctx, func() { e, err = c.explain(from, to, port) })
	return e, errors.Join(failed, err)
}

func (c *Controller) explain(from, to string, at Port) (e Explanation, err error) {
	e = Explanation{From: from, To: to, PortName: at.Name, Protocol: at.Protocol.String()}
	if c.plan == nil {
		return e, errors.New("nothing is known yet")
	}
	source, err := c.find("FROM", from)
	if err != nil {
		return e, err
	}
	destination, err := c.find("TO", to)
	if err != nil {
		return e, err
	}
	port, err := c.numberOf(at, to, destination)
	if err != nil {
		return e, err
	}
	e.Port = port
	mine, err := own()
	if err != nil {
		return e, err
	}
	pairs, compared := 0, c.deciding()
	for _, a := range source {
		for _, b := range destination {
			if familyOf(a) != familyOf(b) {
				continue
			}
			pairs++
			local := mine[a] || mine[b]
			if !local {
				compared.connection(c.world, a, b, port)
			}
			switch {
			case a == b:
				e.Notes = append(e.Notes, fmt.Sprintf("%s is one pod: it always reaches itself", a))
			case local:
				e.Notes = append(e.Notes, fmt.Sprintf("from %s to %s: what this node itself sends, and what is for itself, is always allowed", a, b))
			default:
				for _, end := range []netip.Addr{a, b} {
					if _, here := c.world.holder[end]; !here {
						note, pod := c.elsewhere(end)
						e.Notes = append(e.Notes, note)
						e.Elsewhere = e.Elsewhere || pod
					}
				}
				e.Decisions = append(e.Decisions, c.plan.judge(c.world, a, b, at.Protocol, port)...)
			}
		}
	}
	if pairs == 0 {
		return e, fmt.Errorf("%s and %s have no addresses of one family", from, to)
	}
	if len(compared.keys) > 0 {
		e.Kernel = c.compare(compared)
	}
	return e, nil
}

// elsewhere says who has an address that is not of a pod of this node.
func (c *Controller) elsewhere(a netip.Addr) (note string, pod bool) {
	p := c.world.owner(a)
	if n := c.world.nodeAt(a); p == nil && n != nil {
		return fmt.Sprintf("%s is an address of node %s, and of its host network: no policy selects it, and no podSelector matches it", a, n.Name), false
	}
	if p == nil {
		return fmt.Sprintf("%s is no pod that is known: no policy selects it, and no podSelector matches it; of a Service's address ask for the pods behind it, which is what policies see", a), false
	}
	return fmt.Sprintf("%s is pod %s on node %s: ask there what its policies say", a, p.Name, p.Node), true
}

// find finds the addresses of one end.
func (c *Controller) find(which, text string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	namespace, name, is := strings.Cut(text, "/")
	if !is {
		return nil, fmt.Errorf("%s %q is neither an address nor a pod as namespace/name", which, text)
	}
	pod := Name{namespace, name}
	if at, here := c.world.attached[pod]; here {
		return at.Addresses, nil
	}
	if p := c.world.pods[pod]; p != nil && len(p.Addresses) > 0 {
		return p.Addresses, nil
	}
	return nil, fmt.Errorf("%s: no pod %s with an address is known on this node: pods of other nodes are known where a policy exists", which, pod)
}

// numberOf is the number of a port at a destination.
func (c *Controller) numberOf(port Port, to string, destination []netip.Addr) (uint16, error) {
	if port.Name == "" {
		return port.First, nil
	}
	pod := c.podAt(destination)
	if pod == nil {
		return 0, fmt.Errorf("port %s/%s: nothing is known of a pod %s, and only a pod's ports have names: give a number", port.Name, port.Protocol, to)
	}
	numbers := pod.ports(port.Name, port.Protocol)
	if len(numbers) > 1 {
		return 0, fmt.Errorf("port %s/%s: pod %s has several ports of this name, %v: give one of the numbers", port.Name, port.Protocol, pod.Name, numbers)
	}
	if len(numbers) == 0 {
		return 0, fmt.Errorf("pod %s has no port %s/%s: %s", pod.Name, port.Name, port.Protocol, pod.portNames())
	}
	return numbers[0], nil
}

// podAt returns what is known of the pod that has addresses; nil where nothing is.
func (c *Controller) podAt(addresses []netip.Addr) *Pod {
	for _, a := range addresses {
		if name, here := c.world.holder[a]; here {
			return c.world.here(name)
		}
		if p := c.world.owner(a); p != nil {
			return p
		}
	}
	return nil
}

// portNames says which names a pod's ports have.
func (p *Pod) portNames() string {
	var names []string
	for _, n := range p.Ports {
		names = append(names, fmt.Sprintf("%s/%s (%d)", n.Name, n.Protocol, n.Port))
	}
	if len(names) == 0 {
		return "none of its ports has a name"
	}
	return "its ports with a name are " + strings.Join(names, ", ")
}
