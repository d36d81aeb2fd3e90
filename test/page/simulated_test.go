package page_test

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// simulated are the agents of a cluster in two zones, which answer as flatnetd does. Nodes
// of a zone reach each other by plain routes, others through the tunnel.
type simulated struct {
	nodes, pods int    // of each node
	across      string // how nodes of the two zones reach each other
	began       time.Time
	evil        string // the name of a pod of each node, and in a problem
	plain       bool   // agents do nothing of what is in reach_test.go

	mu     sync.Mutex
	silent map[string]bool   // nodes that do not answer
	ways   map[string]string // states of the health of "n1 n2", where it is not ok
}

func (s *simulated) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func name(i int) string { return fmt.Sprint("n", i) }

func (s *simulated) mode(i, j int) string {
	if (i <= (s.nodes+1)/2) == (j <= (s.nodes+1)/2) {
		return "direct"
	}
	return s.across
}

// noise is a number of 0 to below that is the same for the same things.
func noise(below int, things ...any) int {
	h := fnv.New32a()
	fmt.Fprint(h, things...)
	return int(h.Sum32()>>3) % below
}

// execute is what the API server does with `kubectl exec`.
func (s *simulated) execute(_ context.Context, e *apiserver.Execution) {
	node := strings.TrimPrefix(e.Pod, "flatnetd-")
	var number int
	fmt.Sscanf(node, "n%d", &number)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent[node] {
		e.ErrOut, e.Exit = []byte("flatnetd: asking flatnetd: no flatnetd runs with --state-dir /var/lib/cni/flatnet"), 1
		return
	}
	var said any
	command := strings.Join(e.Command[1:], " ")
	if pod, is := strings.CutPrefix(command, "flows -o json --limit 50 --pod="); is {
		command, said = "", s.flows(number, pod)
	}
	switch command {
	case "status bgp -o json":
		said = s.sessions(number)
	case "status announcements -o json":
		said = s.announcements(number)
	case "status -o json --brief":
		said = s.status(number, true)
	case "status -o json":
		said = s.status(number, false)
	case "status pods -o json":
		said = s.attached(number)
	case "status services -o json":
		said = s.services(number)
	case "status policies -o json":
		said = s.policies(number)
	}
	e.Out, _ = json.Marshal(said) // of maps and texts
}

type object = map[string]any

func (s *simulated) podsOf(i int) int { return s.pods - noise(s.pods/4+1, "pods", i) }

func (s *simulated) status(i int, brief bool) object {
	status := object{
		"node": name(i), "version": "v0.9.0", "since": s.began.Add(-time.Duration(noise(500, "up", i)) * time.Minute), "ready": true, "source": "kubernetes", "fabric": "auto",
		"tunnel": "flatnet.vx", "addresses": []string{fmt.Sprintf("172.30.%d.%d", i>>8, i&255)}, "podCIDRs": []string{fmt.Sprintf("10.%d.%d.0/24", 64+i>>8, i&255), fmt.Sprintf("fd00:244:%x::/64", i)},
		"podMTU": 1450, "pods": []object{{"family": "IPv4", "used": s.podsOf(i), "total": 253, "cooling": 2}, {"family": "IPv6", "used": s.podsOf(i), "total": uint64(1<<64 - 1)}},
		"objects": object{"desired": 4 * s.nodes, "present": 4 * s.nodes},
	}
	problems, groups := []object{}, map[string]int{}
	var peers []object
	for j := 1; j <= s.nodes; j++ {
		if j == i {
			continue
		}
		mode := s.mode(i, j)
		groups[mode]++
		state := s.ways[name(i)+" "+name(j)]
		if state == "lost" {
			problems = append(problems, object{"kind": "peer-lost", "node": name(j), "object": "way by " + mode, "reason": "nothing comes back of what is sent to its pods",
				"advice": "let UDP port 4789 pass between the addresses of the nodes: look at firewalls and security groups"})
		}
		if !brief {
			peers = append(peers, s.peer(i, j, mode, state))
		}
	}
	if i == 3 && s.nodes > 10 {
		problems = append(problems, object{"kind": "sysctl", "node": name(i), "object": "sysctl net.ipv4.ip_forward", "reason": "is 0, and cannot be set: read-only file system", "advice": "set it on this node: `sysctl -w net.ipv4.ip_forward=1`"})
	}
	if s.evil != "" {
		problems = append(problems, object{"kind": "policy-fault", "object": s.evil, "reason": s.evil, "advice": s.evil})
	}
	status["problems"] = problems
	s.reach(i, status)
	if !brief {
		status["peers"] = peers
		return status
	}
	joined := []object{}
	for _, mode := range []string{"direct", "bgp", "vxlan"} {
		if groups[mode] > 0 {
			joined = append(joined, object{"mode": mode, "peers": groups[mode]})
		}
	}
	status["joined"] = joined
	return status
}

func (s *simulated) peer(i, j int, mode, state string) object {
	health := object{"state": "ok", "sent": 20, "roundTripMicroseconds": 140 + noise(180, i, j) + 200*len(strings.TrimPrefix(mode, "direct")), "since": s.began}
	switch state {
	case "lost":
		health = object{"state": "lost", "sent": 20, "lost": 20, "since": s.began}
	case "lossy":
		health["state"], health["lost"] = "lossy", 3
	}
	link := "eth0"
	if mode == "vxlan" {
		link = "flatnet.vx"
	}
	ways := []object{
		{"podCIDR": fmt.Sprintf("10.%d.%d.0/24", 64+j>>8, j&255), "mode": mode, "via": fmt.Sprintf("172.30.%d.%d", j>>8, j&255), "link": link, "present": true, "health": health},
		{"podCIDR": fmt.Sprintf("fd00:244:%x::/64", j), "mode": mode, "via": fmt.Sprintf("fd00:30::%x", j), "link": link, "present": true, "health": health},
	}
	return object{"name": name(j), "mode": mode, "ways": ways, "health": health, "changed": s.began}
}

var apps = []string{"shop/web", "shop/cart", "shop/db", "search/index", "search/query", "mail/in", "mail/out", "metrics/node", "ingress/front", "jobs/run"}

func podName(i, k int) string {
	app := apps[k%len(apps)]
	return fmt.Sprintf("%s-%04x-%d", app, noise(1<<16, "set", app), i*1000+k)
}

func (s *simulated) attached(i int) object {
	pods := []object{}
	for k := range s.podsOf(i) {
		p := object{
			"pod": podName(i, k), "network": "flatnet", "containerID": fmt.Sprintf("%08x", noise(1<<28, i, k)), "ifname": "eth0",
			"addresses": []string{fmt.Sprintf("10.%d.%d.%d", 64+i>>8, i&255, k+2), fmt.Sprintf("fd00:244:%x::%x", i, k+2)}, "hostInterface": fmt.Sprintf("veth%07x", noise(1<<28, i, k)),
			"since": s.began.Add(-time.Duration(noise(90_000, "since", i, k)) * time.Second),
		}
		if k%len(apps) == 8 {
			p["hostPorts"] = []object{{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}, {"hostPort": 443, "containerPort": 8443, "protocol": "tcp"}}
		}
		if k%len(apps) == 2 {
			p["bandwidth"] = object{"ingress": object{"rate": 100_000_000}, "egress": object{"rate": 10_000_000}}
		}
		if i == 2 && k == 1 && s.nodes > 10 {
			p["faults"] = []object{{"word": "route missing", "reason": "host has no route to 10.64.2.3/32"}}
		}
		pods = append(pods, p)
	}
	if s.evil != "" {
		pods[0]["pod"] = s.evil
	}
	return object{"pods": pods}
}

func (s *simulated) services(i int) object {
	ports := []object{}
	for k, app := range apps {
		var endpoints, local []string
		for j := 1; j <= min(s.nodes, 40); j++ {
			for of := k; of < s.podsOf(j); of += len(apps) {
				at := fmt.Sprintf("10.%d.%d.%d:8080", 64+j>>8, j&255, of+2)
				endpoints = append(endpoints, at)
				if j == i {
					local = append(local, at)
				}
			}
		}
		fronts := []object{{"kind": "ClusterIP", "address": fmt.Sprintf("10.96.0.%d:80", 20+k), "policy": "Cluster", "leads": "to endpoints"}}
		if k == 8 {
			fronts = append(fronts, object{"kind": "NodePort", "address": fmt.Sprintf("172.30.0.%d:30080", i&255), "policy": "Local", "leads": "to endpoints"},
				object{"kind": "LoadBalancer", "address": "203.0.113.8:80", "policy": "Local", "leads": "to endpoints"})
		}
		if k == 9 {
			endpoints, local = []string{}, []string{}
			fronts[0]["leads"] = "refused: no endpoints"
		}
		ports = append(ports, object{"service": app, "port": "http", "protocol": "TCP", "family": "IPv4", "fronts": fronts, "endpoints": endpoints, "local": local, "affinity": 0})
	}
	return object{"node": name(i), "synced": true, "ports": ports, "conflicts": []object{}, "rules": 120, "elements": object{}}
}

func (s *simulated) policies(i int) object {
	pods := []object{}
	for k := range s.podsOf(i) {
		open := object{"direction": "ingress", "policies": []string{}, "isolated": false, "allows": []string{}, "refused": 0}
		egress := object{"direction": "egress", "policies": []string{}, "isolated": false, "allows": []string{}, "refused": 0}
		if k%len(apps) == 2 {
			open = object{"direction": "ingress", "policies": []string{"NetworkPolicy shop/db"}, "isolated": true, "allows": []string{"allow from pods app=web of namespace shop: 5432/tcp", "allow from pods app=cart of namespace shop: 5432/tcp"}, "refused": noise(40, "refused", i, k)}
		}
		pods = append(pods, object{"pod": podName(i, k), "addresses": []string{fmt.Sprintf("10.%d.%d.%d", 64+i>>8, i&255, k+2)}, "known": true, "directions": []object{open, egress}})
	}
	return object{"pods": pods, "refusedEarly": object{"ingress": 0, "egress": 0}, "idle": []object{{"policy": "NetworkPolicy mail/old", "fault": "selects no pod: no pod of namespace mail has the labels app=relay"}}}
}
