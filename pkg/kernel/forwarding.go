package kernel

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Forwarding is the machine-wide switch that makes a node forward packets of
// one address family. It belongs to the node, so Remove leaves it alone.
type Forwarding struct {
	IPv6 bool
}

func (f Forwarding) String() string {
	return "sysctl -w " + strings.ReplaceAll(f.Key(), "/", ".") + "=1"
}

// Dependence implements [Object]: forwarding stands alone.
func (Forwarding) Dependence() (Side, string) { return Host, "" }

// Key is the name of the switch below /proc/sys.
func (f Forwarding) Key() string {
	if f.IPv6 {
		return "net/ipv6/conf/all/forwarding"
	}
	return "net/ipv4/ip_forward"
}

func (n *Netlink) enableForwarding(f Forwarding) error {
	// Writing takes the kernel's network lock and visits every interface,
	// so it is done only where it changes something.
	if found, err := n.inspectForwarding(f); err != nil || found == "" {
		return err
	}
	return os.WriteFile(n.sysctl(f.Key()), []byte("1"), 0)
}

func (n *Netlink) inspectForwarding(f Forwarding) (string, error) {
	raw, err := os.ReadFile(n.sysctl(f.Key()))
	if err != nil {
		return "", err
	}
	if value := strings.TrimSpace(string(raw)); value != "1" {
		return fmt.Sprintf("%s is %s", strings.ReplaceAll(f.Key(), "/", "."), value), nil
	}
	return "", nil
}

// sysctl is the file of a sysctl, for example of "net/ipv4/ip_forward".
func (n *Netlink) sysctl(key string) string {
	return filepath.Join(cmp.Or(n.Sysctls, "/proc/sys"), key)
}
