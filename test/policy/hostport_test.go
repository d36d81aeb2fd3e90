package policy_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// Who comes by a port of the node is judged by the pod's address and port, and by its
// own address: from outside, from other pods, here and on another node, from nodes, and
// the pod itself.
func TestHostPorts(t *testing.T) {
	s := newSite(t, cluster.Dual, 2)
	n1, n2 := s.Node("n1"), s.Node("n2")
	web := n1.Prepare("shop", "web")
	const hostPort, otherPort = 8080, 8081
	web.Capabilities = map[string]any{"portMappings": []map[string]any{
		{"hostPort": hostPort, "containerPort": 80, "protocol": "tcp"}, {"hostPort": otherPort, "containerPort": 81, "protocol": "tcp"},
	}}
	must(t, web.Add())
	s.pod(web, "app: web")
	near, far := s.start(n1, "shop", "near", "app: near"), s.start(n2, "shop", "far", "app: far")
	for _, port := range []uint16{80, 81} {
		sayWho(t, web.Namespace, port)
	}
	outside := s.Lab.Node("outside", s.segment.Port("172.30.0.200/24", "fd00:30::c8/64"))

	// Each place as the pod sees it; itself it sees as the node, from where all may come.
	type place struct {
		*netlab.Namespace
		own []netip.Addr
	}
	places := map[string]place{
		"outside": {outside.Namespace, []netip.Addr{netip.MustParseAddr("172.30.0.200"), netip.MustParseAddr("fd00:30::c8")}},
		"near":    {near.Namespace, near.Addresses}, "far": {far.Namespace, far.Addresses},
		"node": {n1.Namespace, n1.Addresses}, "other node": {n2.Namespace, n2.Addresses},
		"itself": {web.Namespace, n1.Addresses},
	}
	// allowed waits until just these places reach the port, and are seen as who they are.
	allowed := func(what string, port uint16, wanted ...string) {
		t.Helper()
		may := map[string]bool{}
		for _, name := range wanted {
			may[name] = true
		}
		for name, p := range places {
			for _, to := range n1.Addresses {
				s.Eventually(fmt.Sprintf("%s: %s at %s, reached %t", what, name, netip.AddrPortFrom(to, port), may[name]), func() error {
					if !may[name] {
						return silent(p.Namespace, to, port)
					}
					source, err := whoAmI(p.Namespace, to, port)
					if err != nil {
						return err
					}
					for _, a := range p.own {
						if a == source {
							return nil
						}
					}
					return fmt.Errorf("seen as %s, not as one of %v", source, p.own)
				})
			}
		}
	}
	all := []string{"outside", "near", "far", "node", "other node", "itself"}
	allowed("without policies", hostPort, all...)
	s.write("deny", policy("shop", "deny", denyIngress))
	allowed("denied", hostPort, "node", "itself")
	allow := func(name, from, port string) {
		s.write(name, policy("shop", name, fmt.Sprintf("{podSelector: {matchLabels: {app: web}}, ingress: [{from: [%s], ports: [{port: %s}]}]}", from, port)))
	}
	// The port is the pod's, and not the node's.
	allow("allow", "{podSelector: {matchLabels: {app: far}}}", fmt.Sprint(hostPort))
	allowed("by the node's port", hostPort, "node", "itself")
	allow("allow", "{podSelector: {matchLabels: {app: far}}}", "80")
	allowed("a pod elsewhere", hostPort, "far", "node", "itself")
	allowed("another of its ports", otherPort, "node", "itself")
	allow("allow", "{podSelector: {matchLabels: {app: near}}}", "http") // by the port's name
	allowed("a pod here", hostPort, "near", "node", "itself")
	allow("allow", `{ipBlock: {cidr: 172.30.0.200/32}}, {ipBlock: {cidr: "fd00:30::c8/128"}}`, "80")
	allowed("outside", hostPort, "outside", "node", "itself")
	// Who opens all to the node's addresses opens nothing to who comes by them.
	allow("allow", fmt.Sprintf(`{ipBlock: {cidr: %s/32}}, {ipBlock: {cidr: "%s/128"}}`, n1.Addresses[0], n1.Addresses[1]), "80")
	allowed("the node's addresses", hostPort, "node", "itself")
	s.write("allow", "")
	s.write("deny", "")
	allowed("without policies again", hostPort, all...)

	// What a pod may begin is judged in the same way.
	s.write("egress", policy("shop", "egress", "{podSelector: {matchLabels: {app: near}}, policyTypes: [Egress]}"))
	allowed("near may begin nothing", hostPort, "outside", "far", "node", "other node", "itself")
	s.write("egress", policy("shop", "egress", "{podSelector: {matchLabels: {app: near}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}"))
	allowed("near may reach the pod", hostPort, all...)
	allowed("but one port of it", otherPort, "outside", "far", "node", "other node", "itself")
	s.write("egress", "")
	web.Delete()
}

// sayWho tells who connects to a port of a namespace as whom it is seen.
func sayWho(t *testing.T, at *netlab.Namespace, port uint16) {
	t.Helper()
	at.Serve(t, port, func(c net.Conn) {
		_, _ = fmt.Fprint(c, netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap())
		c.Close()
	})
}

// whoAmI connects, and returns as whom the other end sees that.
func whoAmI(from *netlab.Namespace, to netip.Addr, port uint16) (netip.Addr, error) {
	c, err := dial(from, to, port, 2*time.Second)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(pace.Far()))
	buffer := make([]byte, 64)
	n, err := c.Read(buffer)
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(string(buffer[:n]))
}
