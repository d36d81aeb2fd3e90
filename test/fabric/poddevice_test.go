package fabric_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/poddevice"
)

// isDevice fails where a pod's interfaces are not of a kind.
func isDevice(t *testing.T, p *cluster.Pod, want string) {
	t.Helper()
	outside := get(p.Node.Netlink().LinkByName(p.HostInterface))(t)
	inside := get(p.Netlink().LinkByName("eth0"))(t)
	if outside.Type() != want || inside.Type() != want {
		t.Errorf("pod %s has %s and %s, want %s", p.Name, outside.Type(), inside.Type(), want)
	}
}

// talk fails where a pod does not reach another one in both families, or is not known there
// by its own address.
func talk(t *testing.T, from, to *cluster.Pod) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		at, stop := get2(to.Echo(netip.AddrPortFrom(to.Address(ipv6), 0)))(t)
		seen, _, err := from.Ask(netip.Addr{}, at, pace.Far())
		if stop(); err != nil || seen != from.Address(ipv6) {
			t.Errorf("%s to %s: seen as %s, %v", from.Name, to.Name, seen, err)
		}
	}
}

func get2[A, B any](a A, b B, err error) func(t *testing.T) (A, B) {
	return func(t *testing.T) (A, B) {
		t.Helper()
		must(t, err)
		return a, b
	}
}

// TestPodDeviceAuto: new pods have netkit where the kernel has it; elsewhere they have veth,
// the status says why, and nothing is wrong.
func TestPodDeviceAuto(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start("--pod-device", "auto")
	n := s.Node("n1")
	want, because := kernel.Netkit, ""
	if poddevice.Missing() != "" {
		want, because = kernel.Veth, "has no netkit"
	}
	one, two := n.Pod("one"), s.Node("n2").Pod("two")
	isDevice(t, one, want.String())
	talk(t, one, two)
	must(t, one.Check())
	status := n.Status()
	if d := status.PodDevice; d.New != want || !strings.Contains(d.Because, because) || d.Because != "" && because == "" || d.Veth+d.Netkit != 1 {
		t.Errorf("the status says %+v", d)
	}
	if len(status.Problems) > 0 {
		t.Errorf("problems: %v", status.Problems)
	}
	text := get(n.Flatnetd("status"))(t)
	t.Log("\n" + text)
	if !strings.Contains(text, want.String()+" for new pods") || !strings.Contains(text, because) {
		t.Errorf("status:\n%s", text)
	}
	if written := get(os.ReadFile(n.Conflist()))(t); bytes.Contains(written, []byte("podDevice")) != (want == kernel.Netkit) {
		t.Errorf("with %s, the configuration is\n%s", want, written)
	}
}

// TestPodDeviceThatTheKernelLacks: ADD, STATUS and flatnetd say what is missing and what to
// do; pods that are there stay, and with veth new ones come again.
func TestPodDeviceThatTheKernelLacks(t *testing.T) {
	t.Parallel()
	if poddevice.Missing() == "" {
		t.Skip("this kernel has netkit; those before Linux 6.12 show it")
	}
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start()
	n := s.Node("n1")
	before := n.Pod("before")
	n.Restart("--pod-device", "netkit")
	refused := n.Prepare("test", "refused")
	err := refused.Add()
	for _, part := range []string{"netkit (NETKIT) is missing", "CONFIG_NETKIT", "podDevice", "veth"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("ADD says %v, without %q", err, part)
		}
	}
	refused.Delete()
	must(t, before.Check())
	problems := fmt.Sprint(n.Status().Problems)
	for _, part := range []string{"kernel-feature", "netkit (NETKIT) is missing", "--pod-device veth or auto"} {
		if !strings.Contains(problems, part) {
			t.Errorf("no %q in the problems %s", part, problems)
		}
	}
	if value := n.Metrics()[`flatnet_kernel_feature{feature="netkit"}`]; value != 0 {
		t.Errorf("the metric of netkit is %v", value)
	}
	n.Restart("--pod-device", "veth")
	talk(t, n.Pod("after"), before)
	if problems := n.Status().Problems; len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
}

// TestBothPodDevices: a node is changed to netkit and back. Pods keep what they have, reach
// each other, are right by CHECK and repaired; cleanup removes both kinds.
func TestBothPodDevices(t *testing.T) {
	t.Parallel()
	if missing := poddevice.Missing(); missing != "" {
		t.Skip(missing)
	}
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start("--pod-device", "veth")
	n := s.Node("n1")
	elsewhere := s.Node("n2").Pod("elsewhere")
	var all []*cluster.Pod
	for i, device := range []string{"veth", "netkit", "veth", "netkit"} {
		if i > 0 {
			n.Restart("--pod-device", device)
		}
		p := n.Pod(fmt.Sprintf("%s%d", device, i))
		isDevice(t, p, device)
		for _, other := range append(all, elsewhere) {
			talk(t, p, other)
			talk(t, other, p)
		}
		all = append(all, p)
	}
	for _, p := range all {
		must(t, p.Check())
	}
	if d := n.Status().PodDevice; d.Veth != 2 || d.Netkit != 2 || d.New != kernel.Netkit {
		t.Errorf("the status says %+v", d)
	}
	m := n.Metrics()
	if m[`flatnet_pod_interfaces{device="veth"}`] != 2 || m[`flatnet_pod_interfaces{device="netkit"}`] != 2 {
		t.Errorf("metrics have %v veth, %v netkit", m[`flatnet_pod_interfaces{device="veth"}`], m[`flatnet_pod_interfaces{device="netkit"}`])
	}
	text := get(n.Flatnetd("status", "pods"))(t)
	t.Log("\n" + text)
	if strings.Count(text, " (netkit)") != 2 {
		t.Errorf("status pods:\n%s", text)
	}
	// Somebody takes the route to a pod of each kind away.
	for _, p := range all[:2] {
		get(n.Output("ip", "route", "del", p.Address(false).String()))(t)
		await(t, "the route to "+p.Name, func() error { return p.Check() })
	}
	all[0].Delete()
	all[1].Delete()
	n.Stop()
	get(n.Flatnetd("cleanup"))(t)
	for _, p := range all {
		if _, err := n.Netlink().LinkByName(p.HostInterface); err == nil {
			t.Errorf("%s of pod %s is left", p.HostInterface, p.Name)
		}
	}
}
