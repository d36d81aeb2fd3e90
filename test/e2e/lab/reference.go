package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/kube"
	"github.com/flatnet-cni/flatnet/test/e2e/underlay"
	"github.com/flatnet-cni/flatnet/test/reference"
)

// installReference gives every node the plugins that flatnet is compared with,
// and routes to the other nodes' pods: what an administrator without an agent
// writes.
func (l *Lab) installReference(ctx context.Context) error {
	networks := map[string][]netip.Prefix{}
	for _, m := range l.plan.Machines {
		var err error
		if networks[m.Name], err = l.PodCIDRs(ctx, m.Name); err != nil {
			return err
		}
	}
	for _, m := range l.plan.Machines {
		pid, err := l.PID(m.Name)
		if err != nil {
			return err
		}
		for _, other := range l.plan.Machines {
			if other.Name == m.Name {
				continue
			}
			for i, network := range networks[other.Name] {
				if err := underlay.Route(pid, network, other.Hosts()[i]); err != nil {
					return err
				}
			}
		}
		if err := l.AddPortmap(m.Name); err != nil {
			return err
		}
		script := "sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && cat > " + kube.ConfDir + "/10-reference.conflist"
		cmd, err := l.Command(m.Name, "sh", "-c", script)
		if err != nil {
			return err
		}
		cmd.Stdin = strings.NewReader(ReferenceConflist(networks[m.Name]))
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("configuring the reference plugins on %s: %w: %s", m.Name, err, output)
		}
	}
	l.say("ptp, host-local and static routes are on all nodes")
	return nil
}

// portmap is that plugin on a node.
var portmap = path.Join(kube.BinDir, "portmap")

// AddPortmap puts the plugin portmap on a node, for [ReferenceConflist]: nodes of
// flatnet's have none.
func (l *Lab) AddPortmap(node string) error {
	plugins, err := reference.Plugins()
	if err != nil {
		return err
	}
	program, err := os.Open(filepath.Join(plugins, "portmap"))
	if err != nil {
		return fmt.Errorf("reading portmap: %w", err)
	}
	defer program.Close()
	// The rename is atomic, so that nobody executes half of it.
	cmd, err := l.Command(node, "sh", "-c", fmt.Sprintf("cat > %[1]s.new && chmod 755 %[1]s.new && mv %[1]s.new %[1]s", portmap))
	if err != nil {
		return err
	}
	cmd.Stdin = program
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("putting portmap on %s: %w: %s", node, err, output)
	}
	return nil
}

// RemovePortmap takes it away again, if it is there.
func (l *Lab) RemovePortmap(node string) error {
	_, err := l.Output(node, "rm", "-f", portmap)
	return err
}

// PodCIDRs are those that the cluster has given to a node, IPv4 first; it waits
// for them.
func (l *Lab) PodCIDRs(ctx context.Context, node string) (networks []netip.Prefix, err error) {
	err = Until(ctx, time.Minute, "podCIDRs of "+node, func() error {
		text, err := l.Kubectl("get", "node", node, "-o", "jsonpath={.spec.podCIDRs[*]}")
		if err != nil {
			return err
		}
		networks = nil
		for _, field := range strings.Fields(text) {
			network, err := netip.ParsePrefix(field)
			if err != nil {
				return fmt.Errorf("reading podCIDRs of %s: %w", node, err)
			}
			networks = append(networks, network)
		}
		if len(networks) != len(l.plan.Pods) {
			return fmt.Errorf("podCIDRs %q: want one a family", text)
		}
		return nil
	})
	return networks, err
}

// ReferenceNetwork is the name of the reference plugins' network.
const ReferenceNetwork = "reference"

// ReferenceConflist is a configuration of ptp, host-local and portmap, as kind
// has it, with one of the networks a family.
func ReferenceConflist(networks []netip.Prefix) string {
	var ranges, routes []string
	for _, network := range networks {
		ranges = append(ranges, fmt.Sprintf(`[{"subnet": "%s"}]`, network))
		everywhere := "0.0.0.0/0"
		if network.Addr().Is6() {
			everywhere = "::/0"
		}
		routes = append(routes, fmt.Sprintf(`{"dst": "%s"}`, everywhere))
	}
	return fmt.Sprintf(`{
  "cniVersion": "0.3.1", "name": "`+ReferenceNetwork+`",
  "plugins": [
    {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": [%s], "routes": [%s]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, strings.Join(ranges, ", "), strings.Join(routes, ", "))
}
