package scenarios

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
)

// tutorial is what every introduction to Kubernetes begins with.
func tutorial() []Scenario {
	const group = "tutorial"
	return []Scenario{
		{group, "kubectl run nginx", runNginx},
		{group, "my-service has three pods on three nodes", makeService},
		{group, "my-service by ClusterIP from every node, balanced", serviceByAddress},
		{group, "my-service by DNS name from every node, balanced", serviceByName},
	}
}

func runNginx(r *Run) (string, error) {
	begin := time.Now()
	// The image is a local one of that name, so it is not pulled.
	_, err := r.kubectl("run", "nginx", "--image=nginx", "--port=80", "--restart=Never", "--overrides", `{"spec": {"containers": [{
		"name": "nginx", "image": "nginx", "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 80}],
		"resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}]}}`)
	if err != nil {
		return "", err
	}
	if _, err := r.kubectl("wait", "--for=condition=Ready", "pod/nginx", "--timeout=60s"); err != nil {
		return "", err
	}
	ready := time.Since(begin)
	all, err := r.pods("run=nginx")
	if err != nil {
		return "", err
	}
	if len(all) != 1 {
		return "", fmt.Errorf("%d pods nginx", len(all))
	}
	for _, address := range all[0].Addresses {
		// From the control plane, which is another node.
		url := "http://" + netip.AddrPortFrom(address, 80).String() + "/hostname"
		text, err := r.Lab.Output("control-plane", "curl", "-sS", "--max-time", "10", url)
		if err != nil {
			return "", err
		}
		if text != "nginx" {
			return "", fmt.Errorf("%s answers %q, want nginx", url, text)
		}
	}
	return fmt.Sprintf("ready after %.1f s on %s, answers at %s", ready.Seconds(), all[0].Node, all[0].Addresses), nil
}

func makeService(r *Run) (string, error) {
	if n := len(r.Lab.Plan().Machines) - 1; n < 3 {
		return "", skipped(fmt.Sprintf("needs 3 workers, there are %d", n))
	}
	err := r.apply(`
apiVersion: v1
kind: Service
metadata: {name: my-service}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: my-app}
  ports: [{protocol: TCP, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: my-app}
spec:
  replicas: 3
  selector: {matchLabels: {app: my-app}}
  template:
    metadata: {labels: {app: my-app}}
    spec:
      terminationGracePeriodSeconds: 0
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: my-app}}}
      containers:
      - name: my-app
        image: agnhost
        imagePullPolicy: IfNotPresent
        args: [netexec, --http-port=8080, --udp-port=-1]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
`)
	if err != nil {
		return "", err
	}
	if _, err := r.kubectl("rollout", "status", "deployment/my-app", "--timeout=90s"); err != nil {
		return "", err
	}
	all, err := r.pods("app=my-app")
	if err != nil {
		return "", err
	}
	nodes := map[string]bool{}
	for _, p := range all {
		nodes[p.Node] = true
	}
	if len(all) != 3 || len(nodes) != 3 {
		return "", fmt.Errorf("%d pods on %d nodes: %v", len(all), len(nodes), all)
	}
	if _, err := r.everywhere("client", false); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s, %s", all[0].Node, all[1].Node, all[2].Node), nil
}

// myService returns the ClusterIPs of my-service.
func (r *Run) myService() ([]netip.Addr, error) {
	if o := r.Lab.Plan().Options; o.Proxy == "none" && o.CNI != "flatnet" {
		return nil, skipped("nothing balances Services: no kube-proxy, and no flatnet")
	}
	if _, err := r.kubectl("get", "service", "my-service"); err != nil {
		return nil, skipped("there is no my-service")
	}
	return r.clusterIPs("my-service")
}

// clusterIPs of a Service.
func (r *Run) clusterIPs(service string) ([]netip.Addr, error) {
	text, err := r.kubectl("get", "service", service, "-o", "jsonpath={.spec.clusterIPs[*]}")
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, field := range strings.Fields(text) {
		address, err := netip.ParseAddr(field)
		if err != nil {
			return nil, fmt.Errorf("reading ClusterIPs of %s: %w", service, err)
		}
		all = append(all, address)
	}
	if len(all) != len(r.Lab.Plan().Services) {
		return nil, fmt.Errorf("%s has ClusterIPs %s, want one of each family of the cluster", service, all)
	}
	return all, nil
}

func serviceByAddress(r *Run) (string, error) {
	addresses, err := r.myService()
	if err != nil {
		return "", err
	}
	var urls []string
	for _, a := range addresses {
		urls = append(urls, "http://"+netip.AddrPortFrom(a, 80).String()+"/hostname")
	}
	return r.balanced(urls)
}

func serviceByName(r *Run) (string, error) {
	if _, err := r.myService(); err != nil {
		return "", err
	}
	return r.balanced([]string{
		"http://my-service/hostname",
		"http://my-service." + r.Namespace + ".svc.cluster.local/hostname",
	})
}

// balanced asks each URL from a pod on every node, often, and fails unless all
// requests were answered, by each of the three pods.
func (r *Run) balanced(urls []string) (string, error) {
	clients, err := r.pods("app=client")
	if err != nil {
		return "", err
	}
	if len(clients) != len(r.Lab.Plan().Machines) {
		return "", fmt.Errorf("%d clients on %d nodes", len(clients), len(r.Lab.Plan().Machines))
	}
	const requests = 60
	var errs []error
	fewest, asked := requests, 0
	for _, client := range clients {
		for _, url := range urls {
			// kube-proxy knows of an endpoint a moment later than the API.
			ask := fmt.Sprintf("curl -sS --max-time 5 -w '\\n' '%s'", url)
			err := lab.Until(r, 15*time.Second, "answer of "+url+" on "+client.Node, func() error {
				_, err := r.shell(client.Name, ask)
				return err
			})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			lines, err := r.shell(client.Name, fmt.Sprintf("for i in $(seq %d); do %s || exit 1; done", requests, ask))
			if err != nil {
				errs = append(errs, fmt.Errorf("from %s: %w", client.Node, err))
				continue
			}
			asked += len(lines)
			answers := map[string]int{}
			for _, line := range lines {
				answers[line]++
			}
			if len(answers) != 3 || len(lines) != requests {
				errs = append(errs, fmt.Errorf("from %s, %s was answered %d times by %v, want %d times by three pods", client.Node, url, len(lines), answers, requests))
			}
			for _, n := range answers {
				fewest = min(fewest, n)
			}
		}
	}
	return fmt.Sprintf("%d requests from %d nodes to %s; each pod answered at least %d of %d", asked, len(clients), strings.Join(urls, " "), fewest, requests), errors.Join(errs...)
}
