package scenarios

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
)

// balancers are Services of type LoadBalancer: flatnetd gives them addresses of the
// machines' network, and a host of that network which is not of the cluster reaches them.
func balancers() []Scenario {
	all := []Scenario{
		{Name: "a host outside of the cluster reaches a Service", Run: reachedFromOutside},
		{Name: "a Service that can have no address says why", Run: withoutAddress},
		{Name: "a node is drained, and another one answers", Run: drained},
		{Name: "a node is cut off, and another one answers", Run: cutOff},
	}
	for i := range all {
		all[i].Group = "load balancer"
		run := all[i].Run
		all[i].Run = func(r *Run) (string, error) {
			o := r.Lab.Plan().Options
			switch {
			case o.CNI != "flatnet":
				return "", skipped("nobody gives addresses: the cluster runs the reference")
			case o.Subnets > 1:
				return "", skipped("nodes of both subnets have an interface eth0, and addresses are of one of them")
			case o.Workers < 2:
				return "", skipped("needs 2 workers, one to take over from the other")
			}
			if err := r.giveAddresses(); err != nil {
				return "", fmt.Errorf("switching it on: %w", err)
			}
			return run(r)
		}
	}
	return all
}

// excluded is the label of nodes that do not answer: the control plane, so that what is
// done to a node is not done to the API server.
const excluded = "node.kubernetes.io/exclude-from-external-load-balancers"

// giveAddresses installs flatnet with the component for load balancers, for as long as the
// scenario takes.
func (r *Run) giveAddresses() error {
	before, err := r.Lab.Kustomization()
	if err != nil {
		return err
	}
	r.after(func() error {
		_, err := r.Lab.Kubectl("apply", "-k", before)
		_, without := r.Lab.Kubectl("-n", "flatnet", "delete", "--ignore-not-found", "configmap/flatnet-loadbalancer",
			"role/flatnetd-loadbalancer", "rolebinding/flatnetd-loadbalancer")
		_, rights := r.Lab.Kubectl("delete", "--ignore-not-found", "clusterrole/flatnetd-loadbalancer", "clusterrolebinding/flatnetd-loadbalancer")
		_, leases := r.Lab.Kubectl("-n", "flatnet", "delete", "leases", "-l", "flatnet.io/lease")
		_, label := r.Lab.Kubectl("label", "node", controlPlane, excluded+"-")
		return errors.Join(err, without, rights, leases, label, r.whole())
	})
	if _, err := r.Lab.Kubectl("label", "node", controlPlane, excluded+"=", "--overwrite"); err != nil {
		return err
	}
	directory, err := r.Lab.WithPool("lan", r.pool())
	if err != nil {
		return err
	}
	if _, err := r.Lab.Kubectl("apply", "-k", directory); err != nil {
		return err
	}
	return r.agentsReady()
}

// pool are addresses of the machines' network that no machine has.
func (r *Run) pool() (ranges []string) {
	for _, gateway := range r.Lab.Plan().Subnets[0].Gateways {
		from, to := gateway.Addr().AsSlice(), gateway.Addr().AsSlice()
		from[len(from)-1], to[len(to)-1] = 200, 219
		first, _ := netip.AddrFromSlice(from)
		last, _ := netip.AddrFromSlice(to)
		ranges = append(ranges, first.String()+"-"+last.String())
	}
	return ranges
}

// expose makes a Service of type LoadBalancer in front of pods of a label, and returns its
// addresses, one of each family of the cluster. It is removed after the scenario.
func (r *Run) expose(name, app, policy string) ([]netip.Addr, error) {
	r.after(func() error {
		_, err := r.kubectl("delete", "service", name, "--ignore-not-found", "--timeout=60s")
		return err
	})
	err := r.apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s}
spec:
  type: LoadBalancer
  externalTrafficPolicy: %s
  ipFamilyPolicy: PreferDualStack
  selector: {app: %s}
  ports: [{port: 80, targetPort: %d}]
`, name, policy, app, podPort))
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	err = lab.Until(r, time.Minute, "addresses of Service "+name, func() error {
		all = nil
		text, err := r.kubectl("get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}")
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(text) {
			ip, err := netip.ParseAddr(field)
			if err != nil {
				return fmt.Errorf("its status has %q: %w", field, err)
			}
			all = append(all, ip)
		}
		if len(all) != len(r.Lab.Plan().Services) {
			return fmt.Errorf("it has %s, want one of each family of the cluster", all)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	line, err := r.kubectl("get", "service", name, "--no-headers")
	if err != nil {
		return nil, err
	}
	for _, ip := range all {
		if !strings.Contains(line, ip.String()) {
			return nil, fmt.Errorf("kubectl get service does not show %s: %s", ip, line)
		}
	}
	return all, nil
}

// asks has the host outside ask a Service, and returns what it answers to a path.
func (r *Run) asks(ip netip.Addr, path string) (string, error) {
	return r.Lab.Output(lab.Outside, "curl", "-sS", "-g", "--fail", "--max-time", "5", "http://"+netip.AddrPortFrom(ip, 80).String()+path)
}

// answering waits until the host outside has an answer from an address, asked for anew, and
// returns the node that it leads to by the neighbour's MAC address.
func (r *Run) answering(ip netip.Addr, not string) (node string, err error) {
	err = lab.Until(r, 2*time.Minute, fmt.Sprintf("an answer from %s", ip), func() error {
		if _, err := r.asks(ip, "/hostname"); err != nil {
			return err
		}
		if node, err = r.neighbour(ip); err != nil {
			return err
		}
		if node == not {
			return fmt.Errorf("it leads to %s still", node)
		}
		return nil
	})
	return node, err
}

// neighbour is the node whose MAC address the host outside has for an address.
func (r *Run) neighbour(ip netip.Addr) (string, error) {
	text, err := r.Lab.Output(lab.Outside, "ip", "neigh", "show", "to", ip.String())
	if err != nil {
		return "", err
	}
	for _, m := range r.Lab.Plan().Machines {
		mac, err := r.Lab.Output(m.Name, "cat", "/sys/class/net/eth0/address")
		if err != nil {
			return "", err
		}
		if strings.Contains(text, strings.TrimSpace(mac)) {
			return m.Name, nil
		}
	}
	return "", fmt.Errorf("%s is at no node: %q", ip, strings.TrimSpace(text))
}

func reachedFromOutside(r *Run) (string, error) {
	all, err := r.testPods(false)
	if err != nil {
		return "", err
	}
	var said []string
	anywhere, err := r.expose("anywhere", "pod", "Cluster")
	if err != nil {
		return "", err
	}
	for _, ip := range anywhere {
		node, err := r.answering(ip, "")
		if err != nil {
			return "", err
		}
		answer, err := r.asks(ip, "/hostname")
		if err != nil {
			return "", err
		}
		if !slices.ContainsFunc(all, func(p pod) bool { return p.Name == answer }) {
			return "", fmt.Errorf("%s answers %q, which is no pod of the Service", ip, answer)
		}
		said = append(said, fmt.Sprintf("%s at %s", ip, node))
	}
	// With Local, the node of the only pod answers, and the pod sees who asks.
	const only = "worker2"
	if _, _, err := r.startPod("only", only); err != nil {
		return "", err
	}
	local, err := r.expose("local", "only", "Local")
	if err != nil {
		return "", err
	}
	for i, ip := range local {
		node, err := r.answering(ip, "")
		if err != nil {
			return "", err
		}
		if node != only {
			return "", fmt.Errorf("%s is answered for by %s, and its only pod is on %s", ip, node, only)
		}
		text, err := r.asks(ip, "/clientip")
		if err != nil {
			return "", err
		}
		source, err := netip.ParseAddrPort(text)
		if want := r.Lab.Plan().Subnets[0].Gateways[i].Addr(); err != nil || source.Addr().Unmap() != want {
			return "", fmt.Errorf("%s: the pod saw %q, want %s", ip, text, want)
		}
		said = append(said, fmt.Sprintf("%s (Local) at %s, which saw %s", ip, node, source.Addr().Unmap()))
	}
	return strings.Join(said, ", "), nil
}

// withoutAddress has a Service ask for an address that is in no pool.
func withoutAddress(r *Run) (string, error) {
	const name, wanted = "elsewhere", "192.0.2.1"
	ip := wanted
	if r.Lab.Plan().Services[0].Addr().Is6() {
		ip = "2001:db8::1"
	}
	r.after(func() error {
		_, err := r.kubectl("delete", "service", name, "--ignore-not-found", "--timeout=60s")
		return err
	})
	err := r.apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s, annotations: {flatnet.io/loadbalancer-ips: "%s"}}
spec: {type: LoadBalancer, selector: {app: pod}, ports: [{port: 80}]}
`, name, ip))
	if err != nil {
		return "", err
	}
	var message string
	err = lab.Until(r, time.Minute, "an event on Service "+name, func() error {
		message, err = r.kubectl("get", "events", "--field-selector", "reason=NoAddress,involvedObject.name="+name, "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(message, ip) {
			err = fmt.Errorf("events say %q", message)
		}
		return err
	})
	return message, err
}

// moves has something done to the node that answers for a Service, and waits until the
// host outside, which nobody tells but the network, is answered by another one.
func (r *Run) moves(name string, undo, do func(node string) error) (string, error) {
	if _, err := r.testPods(false); err != nil {
		return "", err
	}
	addresses, err := r.expose(name, "pod", "Cluster")
	if err != nil {
		return "", err
	}
	ip := addresses[0]
	before, err := r.answering(ip, controlPlane)
	if err != nil {
		return "", err
	}
	r.after(func() error { return undo(before) })
	begin := time.Now()
	if err := do(before); err != nil {
		return "", err
	}
	done := time.Since(begin)
	now, err := r.answering(ip, before)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s moved from %s to %s; answered %.1f s after it began, which itself took %.1f s", ip, before, now, time.Since(begin).Seconds(), done.Seconds()), nil
}

func drained(r *Run) (string, error) {
	return r.moves("drained", func(node string) error {
		_, err := r.Lab.Kubectl("uncordon", node)
		return err
	}, func(node string) error {
		_, err := r.Lab.Kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s")
		return err
	})
}

// cutOff takes the cable out of a node.
func cutOff(r *Run) (string, error) {
	cable := func(node, state string) error {
		_, err := r.Lab.Output(lab.Outside, "ip", "link", "set", node, state)
		return err
	}
	return r.moves("cut", func(node string) error { return cable(node, "up") }, func(node string) error { return cable(node, "down") })
}
