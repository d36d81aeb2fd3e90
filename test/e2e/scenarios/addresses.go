package scenarios

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// addresses are the rules of Kubernetes' network model: no address is
// translated between pods and nodes.
func addresses() []Scenario {
	const group = "no NAT"
	return []Scenario{
		{group, "pod to pod, all nodes, TCP", func(r *Run) (string, error) { return r.sources(false, false, tcp) }},
		{group, "pod to pod, all nodes, UDP", func(r *Run) (string, error) { return r.sources(false, false, udp) }},
		{group, "pod to pod, a megabyte", transfer},
		{group, "pod to node", func(r *Run) (string, error) { return r.sources(false, true, tcp) }},
		{group, "node to pod", func(r *Run) (string, error) { return r.sources(true, false, tcp) }},
		{group, "hostNetwork pod to hostNetwork pod", func(r *Run) (string, error) { return r.sources(true, true, tcp) }},
		{group, "what leaves the cluster has the node's address", outside},
	}
}

type protocol func(target netip.AddrPort) (command string)

// tcp and udp ask the test image for the address that it sees.
func tcp(target netip.AddrPort) string {
	return fmt.Sprintf("curl -sS --max-time 5 'http://%s/clientip'", target)
}

func udp(target netip.AddrPort) string {
	return fmt.Sprintf("printf clientip | nc -u -w 1 -W 1 %s %d", target.Addr(), target.Port())
}

// testPods are pods on all nodes, in pods' networks or in the hosts'.
func (r *Run) testPods(onHost bool) ([]pod, error) {
	name := "pod"
	if onHost {
		name = "host"
	}
	if all, err := r.pods("app=" + name); err == nil && len(all) > 0 {
		return all, nil
	}
	return r.everywhere(name, onHost)
}

// sources has every pod of a kind talk to every pod of another, in each family,
// and compares the source that the receiver reports with the sender's address.
func (r *Run) sources(fromHost, toHost bool, ask protocol) (string, error) {
	from, err := r.testPods(fromHost)
	if err != nil {
		return "", err
	}
	to, err := r.testPods(toHost)
	if err != nil {
		return "", err
	}
	port := uint16(podPort)
	if toHost {
		port = hostPort
	}
	var errs []error
	pairs := 0
	for _, sender := range from {
		// One shell for all, since each kubectl takes a while.
		var script strings.Builder
		var want []netip.Addr
		var names []string
		for _, receiver := range to {
			for family, address := range receiver.Addresses {
				fmt.Fprintf(&script, "%s; echo\n", ask(netip.AddrPortFrom(address, port)))
				source, err := r.source(sender, receiver, family, fromHost && !toHost)
				if err != nil {
					return "", err
				}
				want = append(want, source)
				names = append(names, fmt.Sprintf("%s (%s) to %s (%s)", sender.Addresses[family], sender.Node, address, receiver.Node))
			}
		}
		lines, err := r.shell(sender.Name, script.String())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i, name := range names {
			if i >= len(lines) {
				errs = append(errs, fmt.Errorf("%s: no answer", name))
				continue
			}
			got, err := netip.ParseAddrPort(lines[i])
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: answer %q", name, lines[i]))
			} else if a := got.Addr().Unmap(); a != want[i] {
				errs = append(errs, fmt.Errorf("%s: the receiver saw %s, want %s", name, a, want[i]))
			}
			pairs++
		}
	}
	return fmt.Sprintf("%d pairs", pairs), errors.Join(errs...)
}

// source is the address that a receiver is to see. That is the sender's, but
// what a node sends to a pod through the tunnel comes from the node's end of the
// tunnel, for answers to come back through it: the network address of the
// node's podCIDR. It is not translated, but chosen.
func (r *Run) source(sender, receiver pod, family int, nodeToPod bool) (netip.Addr, error) {
	from, _ := r.Lab.Plan().Machine(sender.Node)
	to, _ := r.Lab.Plan().Machine(receiver.Node)
	// ptp gives its end of a pod's wire the network's first address, which the
	// node takes for its own.
	gateway := r.Lab.Plan().Options.CNI == "reference" && from.Name == to.Name
	if !nodeToPod || !gateway && !r.Lab.Plan().Tunnelled(from, to) {
		return sender.Addresses[family], nil
	}
	networks, err := r.Lab.PodCIDRs(r, sender.Node)
	if err != nil {
		return netip.Addr{}, err
	}
	end := networks[family].Masked().Addr()
	if gateway {
		end = end.Next()
	}
	return end, nil
}

// transfer sends more than fits into one packet both ways, with the largest
// packets that interfaces allow: a wrong MTU lets small requests pass.
func transfer(r *Run) (string, error) {
	all, err := r.testPods(false)
	if err != nil {
		return "", err
	}
	var errs []error
	transfers := 0
	for _, sender := range all {
		var script strings.Builder
		script.WriteString("head -c 1000000 /dev/zero > /tmp/zeros\n")
		for _, receiver := range all {
			for _, address := range receiver.Addresses {
				url := "http://" + netip.AddrPortFrom(address, podPort).String()
				fmt.Fprintf(&script, "curl -sS --max-time 10 -o /dev/null -w '%%{http_code} %%{size_upload}\\n' -F file=@/tmp/zeros %s/upload || echo failed %s\n", url, url)
				transfers++
			}
		}
		lines, err := r.shell(sender.Name, script.String())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, line := range lines {
			var code, size int
			if _, err := fmt.Sscan(line, &code, &size); err != nil || code != 201 || size < 1000000 {
				errs = append(errs, fmt.Errorf("from %s: %s", sender.Node, line))
			}
		}
	}
	return fmt.Sprintf("%d transfers", transfers), errors.Join(errs...)
}

// outside has every pod talk to a host that is not in the cluster: the router.
func outside(r *Run) (string, error) {
	if r.Lab.Plan().Options.CNI != "flatnet" {
		return "", skipped("the reference is set up without masquerading")
	}
	all, err := r.testPods(false)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, sender := range all {
		for _, m := range r.Lab.Plan().Machines {
			if m.Name != sender.Node {
				continue
			}
			for family, gateway := range r.Lab.Plan().Subnets[m.Subnet].Gateways {
				lines, err := r.shell(sender.Name, tcp(netip.AddrPortFrom(gateway.Addr(), 80)))
				if err != nil {
					errs = append(errs, err)
					continue
				}
				got, err := netip.ParseAddrPort(lines[0])
				if err != nil || got.Addr().Unmap() != m.Addresses[family].Addr() {
					errs = append(errs, fmt.Errorf("from %s on %s: %s saw %q, want %s", sender.Addresses[family], sender.Node, gateway.Addr(), lines[0], m.Addresses[family].Addr()))
				}
			}
		}
	}
	return fmt.Sprintf("from %d nodes", len(all)), errors.Join(errs...)
}
