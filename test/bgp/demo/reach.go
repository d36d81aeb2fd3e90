package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// podsOfNode is how many pods each node has: connections of several pairs take different
// routers.
const podsOfNode = 4

// served is a pod that answers with the address that it sees, in both families.
func (d *demo) served(p *cluster.Pod) (at [2]netip.AddrPort, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	for i, ipv6 := range []bool{false, true} {
		var one func()
		if at[i], one, err = p.Echo(netip.AddrPortFrom(p.Address(ipv6), 0)); err != nil {
			stop()
			return at, nil, err
		}
		stops = append(stops, one)
	}
	return at, stop, nil
}

// asks has a machine ask who it is, at an address, until it is answered. Being taken for
// somebody else is an error.
func asks(ctx context.Context, from *netlab.Namespace, source netip.Addr, to netip.AddrPort) error {
	_, err := pace.Await(pace.Far(), func() error {
		if ctx.Err() != nil {
			return nil
		}
		seen, _, err := from.Ask(source, to, patience)
		if err == nil && seen != source {
			err = fmt.Errorf("%s is seen as %s", source, seen)
		}
		return err
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s asking %s: %w", source, to, err)
	}
	return nil
}

// way is who a packet passes, by name.
func (d *demo) way(from *netlab.Namespace, to netip.Addr) (string, error) {
	hops, err := from.Trace(to, pace.Of(patience))
	if err != nil {
		return "", fmt.Errorf("tracing the way to %s: %w", to, err)
	}
	names := map[netip.Addr]string{}
	for _, p := range d.pods {
		for _, a := range p.Addresses {
			names[a] = p.Name
		}
	}
	for i, r := range d.racks.Routers() {
		rack, host := i/2, 251+i%2
		for _, text := range []string{fmt.Sprintf("172.30.%d.%d", rack, host), fmt.Sprintf("fd00:30:%d::%d", rack, host), fmt.Sprintf("172.31.0.%d", i+1), fmt.Sprintf("fd00:31::%d", i+1)} {
			names[netip.MustParseAddr(text)] = r.Name
		}
	}
	for _, n := range d.racks.Nodes {
		for _, a := range n.Addresses {
			names[a] = n.Name
		}
	}
	var all []string
	for _, hop := range hops {
		name := names[hop.WithZone("")]
		if name == "" {
			name = hop.String() // a gateway of a pod has an address of the node's own
		}
		all = append(all, name)
	}
	return strings.Join(all, " → "), nil
}

// reachPods has pods of different racks reach each other.
func (d *demo) reachPods(ctx context.Context) error {
	for number := range 2 * podsOfNode {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.pods = append(d.pods, d.racks.Nodes[number/podsOfNode].Pod(fmt.Sprintf("web-%d", number+1)))
	}
	d.Heading("Pods of different racks")
	d.Text("Each pod asks each one of the other rack who it is, and is answered with its own address: nothing is\ntranslated. The way is one packet's with each TTL, as traceroute finds it: there is no tunnel.")
	rows := [][]string{{"from", "to", "", "way"}}
	paths := 0
	for i, from := range d.pods {
		for j, to := range d.pods {
			if from.Node == to.Node {
				continue
			}
			at, stop, err := d.served(to)
			if err != nil {
				return err
			}
			for f, ipv6 := range []bool{false, true} {
				if err = asks(ctx, from.Namespace, from.Address(ipv6), at[f]); err != nil {
					break
				}
				paths++
			}
			stop()
			if err != nil {
				return err
			}
			if i%podsOfNode != 0 || j%podsOfNode > 1 {
				continue
			}
			for f, ipv6 := range []bool{false, true} {
				way, err := d.way(from.Namespace, to.Address(ipv6))
				if err != nil {
					return err
				}
				if strings.Count(way, "→") != 4 {
					return fmt.Errorf("the way from %s to %s is %s, and not by the node, a router of each rack, and the other node", from.Name, to.Name, way)
				}
				rows = append(rows, []string{from.Name, to.Name, []string{"IPv4", "IPv6"}[f], way})
			}
		}
	}
	d.Table(rows)
	d.summary = append(d.summary, fmt.Sprintf("%d of %d paths between pods of different racks, no translation, no tunnel", paths, paths))
	return nil
}

// balancer is the Service's address.
const balancer = "198.51.100.1"

// reachFromOutside has the machine outside reach a pod, and a Service.
func (d *demo) reachFromOutside(ctx context.Context) error {
	world := d.racks.World
	own := [2]netip.Addr{netip.MustParseAddr("172.31.0.9"), netip.MustParseAddr("fd00:31::9")}
	pod := d.pods[0]
	at, stop, err := d.served(pod)
	if err != nil {
		return err
	}
	defer stop()
	d.Heading("A machine outside of the cluster")
	rows := [][]string{{"from", "to", "", "seen as", "way"}}
	for f, ipv6 := range []bool{false, true} {
		if err := asks(ctx, world.Namespace, own[f], at[f]); err != nil {
			return err
		}
		way, err := d.way(world.Namespace, pod.Address(ipv6))
		if err != nil {
			return err
		}
		rows = append(rows, []string{"world", pod.Name, pod.Address(ipv6).String(), own[f].String(), way})
	}
	d.Text("It has routes to its routers, and nothing of flatnet's. It reaches pods, and is seen as who it is:")
	d.Table(rows)
	ready := true
	name, protocol, port := "echo", v1.ProtocolUDP, int32(at[0].Port())
	d.api.Put(&v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: v1.ServiceSpec{
			Type: v1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"}, ExternalTrafficPolicy: v1.ServiceExternalTrafficPolicyLocal,
			Ports: []v1.ServicePort{{Name: name, Protocol: protocol, Port: 80}},
		},
		Status: v1.ServiceStatus{LoadBalancer: v1.LoadBalancerStatus{Ingress: []v1.LoadBalancerIngress{{IP: balancer}}}},
	})
	d.api.Put(&discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-a", Labels: map[string]string{discovery.LabelServiceName: "web"}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
		Endpoints: []discovery.Endpoint{{
			Addresses: []string{pod.Address(false).String()}, NodeName: &pod.Node.Name, Conditions: discovery.EndpointConditions{Ready: &ready, Serving: &ready},
		}},
	})
	if err := asks(ctx, world.Namespace, own[0], netip.AddrPortFrom(netip.MustParseAddr(balancer), 80)); err != nil {
		return err
	}
	d.Text("A Service of type LoadBalancer has the address " + balancer + ", policy Local, and one endpoint, " + pod.Name + ".\nSo n1 tells of it, and n2 does not. world reaches it, and the pod sees " + own[0].String() + ".")
	if err := d.ask(d.racks.A1, "show route for "+balancer); err != nil {
		return err
	}
	if err := d.ask(d.racks.B2, "show bgp ipv4 unicast "+balancer+"/32"); err != nil {
		return err
	}
	d.summary = append(d.summary, "world reaches pods and a Service's address, and is seen by its own")
	return nil
}
