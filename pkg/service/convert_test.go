package service

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

// describe is a Service in words.
func describe(s Service) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s cluster %v", s.Name, s.ClusterIPs)
	for _, p := range s.Ports {
		fmt.Fprintf(&b, " %s:%d/%s@%d", p.Name, p.Port, p.Protocol, p.NodePort)
	}
	if len(s.ExternalIPs)+len(s.LoadBalancerIPs) > 0 {
		fmt.Fprintf(&b, " external %v lb %v ranges %v", s.ExternalIPs, s.LoadBalancerIPs, s.SourceRanges)
	}
	fmt.Fprintf(&b, " local %t/%t affinity %s health %d", s.InternalLocal, s.ExternalLocal, s.Affinity, s.HealthCheckPort)
	return b.String()
}

func TestFromService(t *testing.T) {
	for _, test := range []struct{ name, object, want string }{
		{"ClusterIP", `{"spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"], "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}}`,
			"default/s cluster [10.96.0.1 fd00:96::1] http:80/tcp@0 local false/false affinity 0s health 0"},
		{"of an old API server", `{"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 53, "protocol": "UDP"}, {"name": "x", "port": 9, "protocol": "SCTP"}, {"name": "y", "port": 7}, {"name": "z", "port": 7, "protocol": "QUIC"}]}}`,
			"default/s cluster [10.96.0.1] :53/udp@0 x:9/sctp@0 y:7/tcp@0 local false/false affinity 0s health 0"},
		{"headless", `{"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}`, "none"},
		{"no address yet", `{"spec": {"clusterIP": ""}}`, "none"},
		{"ExternalName", `{"spec": {"type": "ExternalName", "clusterIP": "10.96.0.1", "externalName": "example.org"}}`, "none"},
		{"of another proxy", `{"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": ""}}, "spec": {"clusterIP": "10.96.0.1"}}`, "none"},
		{"load balancer", `{"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.9", "", "010.0.0.01"], "loadBalancerSourceRanges": [" 10.0.0.7/8 ", "fd00::/8", "all"],
			"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "ports": [{"port": 80, "nodePort": 30080}]},
			"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "VIP"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}, {"hostname": "example.org"}]}}}`,
			"default/s cluster [10.96.0.1] :80/tcp@30080 external [192.0.2.9 10.0.0.1] lb [192.0.2.1 192.0.2.2] ranges [10.0.0.0/8 fd00::/8] local true/true affinity 0s health 31000"},
		{"policy Local with nothing external", `{"spec": {"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}}`,
			"default/s cluster [10.96.0.1] local false/false affinity 0s health 0"},
		{"policy Local with external IPs, but no load balancer", `{"spec": {"clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.9"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}}`,
			"default/s cluster [10.96.0.1] external [192.0.2.9] lb [] ranges [] local false/true affinity 0s health 0"},
		{"affinity", `{"spec": {"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90}}}}`,
			"default/s cluster [10.96.0.1] local false/false affinity 1m30s health 0"},
		{"affinity without a timeout", `{"spec": {"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP"}}`, "default/s cluster [10.96.0.1] local false/false affinity 3h0m0s health 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var o v1.Service
			if err := json.Unmarshal([]byte(test.object), &o); err != nil {
				t.Fatal(err)
			}
			o.Namespace, o.Name = "default", "s"
			s, ok := FromService(&o)
			got := "none"
			if ok {
				got = describe(s)
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestFromSlice(t *testing.T) {
	const named = `"metadata": {"name": "s-x", "labels": {"kubernetes.io/service-name": "s"}}, `
	for _, test := range []struct{ name, object, want string }{
		{"endpoints", `{` + named + `"addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"name": "all"}],
			"endpoints": [{"addresses": ["10.244.1.5", "10.244.1.6"], "nodeName": "n1"}, {"addresses": ["10.244.2.5"], "conditions": {"ready": false, "serving": true, "terminating": true}, "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n2"}]}}]}`,
			"default/s s-x [{http tcp 8080} { udp 53}]; 10.244.1.5 on n1 true true false <nil>; 10.244.2.5 on  false true true &{[a] [n2]}"},
		{"what cannot be", `{` + named + `"addressType": "IPv6", "ports": [{"name": "http", "port": 0}], "endpoints": [{"addresses": []}, {"addresses": ["10.0.0.1"]}, {"addresses": ["x"]}, {"addresses": ["fd00::5"]}]}`,
			"default/s s-x []; fd00::5 on  true true false <nil>"},
		{"domain names", `{` + named + `"addressType": "FQDN", "endpoints": [{"addresses": ["example.org"]}]}`, "none"},
		{"of nobody", `{"addressType": "IPv4"}`, "none"},
		{"headless", `{"metadata": {"labels": {"kubernetes.io/service-name": "s", "service.kubernetes.io/headless": ""}}, "addressType": "IPv4"}`, "none"},
		{"of another proxy", `{"metadata": {"labels": {"kubernetes.io/service-name": "s", "service.kubernetes.io/service-proxy-name": "x"}}, "addressType": "IPv4"}`, "none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var o discovery.EndpointSlice
			if err := json.Unmarshal([]byte(test.object), &o); err != nil {
				t.Fatal(err)
			}
			o.Namespace = "default"
			name, s, ok := FromSlice(&o)
			got := "none"
			if ok {
				got = fmt.Sprintf("%s %s %v", name, s.Name, s.Ports)
				for _, e := range s.Endpoints {
					got += fmt.Sprintf("; %s on %s %t %t %t %v", e.Address, e.Node, e.Ready, e.Serving, e.Terminating, e.Hints)
				}
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestSelector: what the API server is asked to leave out is what is left out here.
func TestSelector(t *testing.T) {
	if want := "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"; Selector != want {
		t.Errorf("%s, want %s", Selector, want)
	}
}
