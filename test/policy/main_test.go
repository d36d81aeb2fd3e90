// Package policy_test tries NetworkPolicies with the real flatnetd, the real plugin and
// real traffic, with the objects in a directory.
package policy_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// site is a cluster whose flatnetds keep policies.
type site struct {
	*cluster.Cluster
	t       *testing.T
	segment *cluster.Subnet
	objects string // the directory
}

func newSite(t *testing.T, f cluster.Families, nodes int, flags ...string) *site {
	t.Helper()
	s := &site{Cluster: cluster.Start(t), t: t}
	s.segment = s.OneSegment(f, nodes)
	s.objects = filepath.Join(s.Directory, "objects")
	must(t, os.Mkdir(s.objects, 0o700))
	s.WriteNodes()
	for _, n := range s.Nodes {
		n.Start(s.flags(n, flags...)...)
	}
	for _, n := range s.Nodes {
		n.WaitReady()
	}
	return s
}

// list is the file in which the plugin of a node reads who begins closed.
func (s *site) list(n *cluster.Node) string { return filepath.Join(n.Directory, "policies.json") }

func (s *site) flags(n *cluster.Node, more ...string) []string {
	return append([]string{"--fabric", "direct", "--policies", "--policies-dir", s.objects, "--policies-file", s.list(n), "--resync", "1h"}, more...)
}

// write puts objects into a file of the directory; empty text removes it.
func (s *site) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.objects, name+".yaml")
	if text == "" {
		must(s.t, os.Remove(path))
		return
	}
	must(s.t, os.WriteFile(path+".new", []byte(text), 0o600))
	must(s.t, os.Rename(path+".new", path))
}

// pod describes a pod, with the addresses that it has.
func (s *site) pod(p *cluster.Pod, labels string) {
	s.t.Helper()
	var ips []string
	for _, a := range p.Addresses {
		ips = append(ips, fmt.Sprintf("{ip: %q}", a))
	}
	s.write("pod-"+p.Space+"-"+p.Name, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {namespace: %s, name: %s, uid: %q, labels: {%s}}
spec:
  nodeName: %s
  containers: [{name: c, ports: [{name: http, containerPort: 80}]}]
status: {phase: Running, podIPs: [%s]}
`, p.Space, p.Name, p.UID, labels, p.Node.Name, strings.Join(ips, ", ")))
}

// start attaches a pod and describes it.
func (s *site) start(n *cluster.Node, namespace, name, labels string) *cluster.Pod {
	s.t.Helper()
	p := n.Prepare(namespace, name)
	must(s.t, p.Add())
	s.pod(p, labels)
	return p
}

// policy is a NetworkPolicy with a spec in YAML's flow style.
func policy(namespace, name, spec string) string {
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: %s, name: %s}\nspec: %s\n", namespace, name, spec)
}

// unanswered is how long nobody is waited for who does not answer.
const unanswered = 300 * time.Millisecond

// dial connects, or fails.
func dial(from *netlab.Namespace, to netip.Addr, port uint16, timeout time.Duration) (c net.Conn, err error) {
	err = from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, port).String(), timeout)
		return err
	})
	return c, err
}

// tries connects once.
func tries(from *netlab.Namespace, to netip.Addr, port uint16, timeout time.Duration) error {
	c, err := dial(from, to, port, timeout)
	if err != nil {
		return err
	}
	return c.Close()
}

// reached waits until a connection is possible.
func (s *site) reached(what string, from *netlab.Namespace, to *cluster.Pod, port uint16) {
	s.t.Helper()
	for _, a := range to.Addresses {
		s.Eventually(fmt.Sprintf("%s: %s reaches %s", what, from.Name, a), func() error { return tries(from, a, port, 2*time.Second) })
	}
}

// refused waits until connections are not possible, and are not refused by the pod.
func (s *site) refused(what string, from *netlab.Namespace, to *cluster.Pod, port uint16) {
	s.t.Helper()
	for _, a := range to.Addresses {
		s.Eventually(fmt.Sprintf("%s: %s does not reach %s", what, from.Name, a), func() error { return silent(from, a, port) })
	}
}

// silent fails unless nobody answers.
func silent(from *netlab.Namespace, to netip.Addr, port uint16) error {
	err := tries(from, to, port, unanswered)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil
	}
	return fmt.Errorf("it connects, or is told so: %v", err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
