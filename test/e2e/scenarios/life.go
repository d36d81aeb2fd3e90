package scenarios

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
)

// life is what happens to a cluster that is in use: pods come and go in bursts,
// and whatever runs beside them is restarted, replaced or missing.
func life(o Options) []Scenario {
	all := []Scenario{
		{Name: "60 pods at once on one node, and nothing left of them", Run: burst},
		{Name: "kubelet is restarted", Run: func(r *Run) (string, error) { return r.restart("kubelet") }},
		{Name: "containerd is restarted", Run: func(r *Run) (string, error) { return r.restart("containerd") }},
		{Name: "a node is rebooted", Run: reboot},
		{Name: "flatnetd is updated", Run: update},
		{Name: "flatnet is deleted and applied again", Run: reinstall},
		{Name: "flatnet's chart takes over, is upgraded, removed and installed", Run: func(r *Run) (string, error) { return r.chart(o.Build) }},
		{Name: fmt.Sprintf("the API server is away for %s", o.APIOutage), Run: func(r *Run) (string, error) { return r.withoutAPI(o.APIOutage) }},
	}
	for i := range all {
		all[i].Group = "life"
		run := all[i].Run
		all[i].Run = func(r *Run) (string, error) {
			if r.Lab.Plan().Options.CNI != "flatnet" {
				return "", skipped("it looks at what flatnet holds, and the cluster runs the reference")
			}
			r.after(r.whole)
			return run(r)
		}
	}
	return all
}

const (
	// scene is the node that things happen to.
	scene        = "worker1"
	controlPlane = "control-plane"
	// elsewhere is another node.
	elsewhere = controlPlane
)

// whole waits until the cluster is as it should be: all nodes are ready, and
// flatnetd on all of them.
func (r *Run) whole() error {
	return errors.Join(r.nodesReady(time.Time{}), r.agentsReady())
}

func (r *Run) agentsReady() error {
	_, err := r.Lab.Kubectl("-n", "flatnet", "rollout", "status", "daemonset/flatnetd", "--timeout=90s")
	return err
}

// slowestReturn is how long a kubelet may take to notice that the API server is
// there again. While it is away, the pauses between attempts grow to a minute, and after
// the first that succeeds comes one more pause (package cache of client-go).
const slowestReturn = 3 * time.Minute

// nodesReady waits until all nodes are ready, and each has said that it lives
// after a time: what the API knows may be old.
func (r *Run) nodesReady(after time.Time) error {
	return lab.Until(r, slowestReturn, "nodes to be ready", func() error {
		text, err := r.Lab.Kubectl("-n", "kube-node-lease", "get", "leases", "-o", "json")
		if err != nil {
			return err
		}
		var leases struct {
			Items []struct {
				Metadata struct{ Name string }
				Spec     struct{ RenewTime time.Time }
			}
		}
		if err := json.Unmarshal([]byte(text), &leases); err != nil {
			return fmt.Errorf("reading leases: %w", err)
		}
		renewed := map[string]time.Time{}
		for _, lease := range leases.Items {
			renewed[lease.Metadata.Name] = lease.Spec.RenewTime
		}
		for _, m := range r.Lab.Plan().Machines {
			if !renewed[m.Name].After(after) {
				return fmt.Errorf("%s was last heard of at %s", m.Name, renewed[m.Name].Format(time.TimeOnly))
			}
			status, err := r.Lab.Kubectl("get", "node", m.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
			if err != nil {
				return err
			}
			if status != "True" {
				return fmt.Errorf("%s: Ready is %s", m.Name, status)
			}
		}
		return nil
	})
}

// newPod starts a pod on a node, has a pod of another node reach it in each
// family, and removes it. It returns how long it took to be ready.
func (r *Run) newPod(node string) (time.Duration, error) {
	from, err := r.testPod(elsewhere)
	if err != nil {
		return 0, err
	}
	const name = "new"
	all, took, err := r.startPod(name, node)
	if err != nil {
		return 0, err
	}
	for _, address := range all[0].Addresses {
		url := "http://" + netip.AddrPortFrom(address, podPort).String() + "/hostname"
		lines, err := r.shell(from.Name, "curl -sS --max-time 10 '"+url+"'")
		if err != nil {
			return 0, fmt.Errorf("from %s to a new pod on %s: %w", from.Node, node, err)
		}
		if !slices.Equal(lines, []string{name}) {
			return 0, fmt.Errorf("from %s to a new pod on %s: %s answers %q, want %s", from.Node, node, url, lines, name)
		}
	}
	return took, r.removePod(name)
}

// startPod starts a pod on a node, which is removed after the scenario, and waits until it
// is ready. It returns how long that took.
func (r *Run) startPod(name, node string) (started []pod, took time.Duration, err error) {
	r.after(func() error { return r.removePod(name) })
	begin := time.Now()
	err = r.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  nodeSelector: {kubernetes.io/hostname: %[2]s}
  terminationGracePeriodSeconds: 0
  containers:
  - name: agnhost
    image: agnhost
    imagePullPolicy: IfNotPresent
    args: [netexec, --http-port=%[3]d, --udp-port=%[3]d] # without UDP it never says that it is healthy
    readinessProbe: {httpGet: {path: /healthz, port: %[3]d}, periodSeconds: 1}
`, name, node, podPort))
	if err != nil {
		return nil, 0, err
	}
	if _, err := r.kubectl("wait", "--for=condition=Ready", "pod/"+name, "--timeout="+slowestReturn.String()); err != nil {
		return nil, 0, err
	}
	took = time.Since(begin)
	started, err = r.pods("app=" + name)
	return started, took, err
}

func (r *Run) removePod(name string) error {
	_, err := r.kubectl("delete", "pod", name, "--ignore-not-found", "--timeout=60s")
	return err
}

// testPod is the one of [Run.testPods] on a node.
func (r *Run) testPod(node string) (pod, error) {
	all, err := r.testPods(false)
	if err != nil {
		return pod{}, err
	}
	i := slices.IndexFunc(all, func(p pod) bool { return p.Node == node })
	if i < 0 {
		return pod{}, fmt.Errorf("no pod of the test is on %s", node)
	}
	return all[i], nil
}

// reach has a pod ping others, each of their addresses once.
func (r *Run) reach(from pod, to []pod) error {
	var script strings.Builder
	for _, p := range to {
		for _, address := range p.Addresses {
			fmt.Fprintf(&script, "ping -n -q -c 1 -W 10 %[1]s >/dev/null || echo %[1]s\n", address)
		}
	}
	script.WriteString("echo done")
	lines, err := r.shell(from.Name, script.String())
	if err != nil {
		return err
	}
	if silent := lines[:len(lines)-1]; len(silent) > 0 {
		return fmt.Errorf("pod %s on %s gets no answer from %s", from.Name, from.Node, strings.Join(silent, " "))
	}
	return nil
}

// settled waits until the API knows the pods of the test as they were before. A node
// that the API server has not heard of for a while has pods that are not ready, until
// its kubelet has said that they are: each of them says so in its own time, and on a
// busy machine that is long after the node itself is ready. What was really started anew
// never becomes what it was.
func (r *Run) settled(before []pod) error {
	return lab.Until(r, slowestReturn, "the pods to be as before", func() error {
		now, err := r.testPods(false)
		if err != nil {
			return err
		}
		return unchanged(before, now)
	})
}

// unchanged fails unless pods are the same as before, in the same sandboxes and
// containers: nothing was started anew.
func unchanged(before, now []pod) error {
	text := func(all []pod) (lines []string) {
		for _, p := range all {
			lines = append(lines, fmt.Sprintf("%s/%s (%s) on %s, ready %t, %s, restarts %d, %s", p.Namespace, p.Name, p.UID, p.Node, p.Ready, p.Addresses, p.Restarts, p.Containers))
		}
		return lines
	}
	var errs []error
	old, new := text(before), text(now)
	for _, line := range old {
		if !slices.Contains(new, line) {
			errs = append(errs, fmt.Errorf("was: %s", line))
		}
	}
	for _, line := range new {
		if !slices.Contains(old, line) {
			errs = append(errs, fmt.Errorf("is: %s", line))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("pods have changed:\n%w", errors.Join(errs...))
	}
	return nil
}
