package scenarios

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
)

// withoutAPI stops the API server for a while. Pods go on to reach each other,
// and Services by address and by name; afterwards nodes and pods are as before,
// and new pods start.
func (r *Run) withoutAPI(outage time.Duration) (string, error) {
	before, err := r.testPods(false)
	if err != nil {
		return "", err
	}
	urls, err := r.clients()
	if err != nil {
		return "", err
	}
	pings, err := r.ping(scene)
	if err != nil {
		return "", err
	}
	r.after(func() error { return r.Lab.Order(controlPlane, "start", "kube-apiserver") })
	if err := r.Lab.Order(controlPlane, "stop", "kube-apiserver"); err != nil {
		return "", err
	}
	stopped := time.Now()
	if text, err := r.Lab.Kubectl("get", "--raw", "/readyz"); err == nil {
		return "", fmt.Errorf("the API server is stopped, and says %q", text)
	}
	select {
	case <-r.Done():
		return "", r.Err()
	case <-time.After(outage):
	}
	started := time.Now()
	if err := r.Lab.Order(controlPlane, "start", "kube-apiserver"); err != nil {
		return "", err
	}
	err = lab.Until(r, slowestReturn, "the API server", func() error {
		_, err := r.Lab.Kubectl("get", "--raw", "/readyz")
		return err
	})
	if err != nil {
		return "", err
	}
	newPod, err := r.newPod(scene)
	if err != nil {
		return "", err
	}
	if err := r.nodesReady(started); err != nil {
		return "", err
	}
	ready := time.Since(started)
	summary, err := pings.stop(patience)
	if err != nil {
		return "", err
	}
	requests, err := r.asked(urls, stopped, started)
	if err != nil {
		return "", err
	}
	if err := r.settled(before); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %d requests to a Service by address and by name, all answered; back again, a new pod was ready after %.1f s, all nodes after %.1f s", summary, requests, newPod.Seconds(), ready.Seconds()), r.agree(scene)
}

// clients starts a pod on every node that asks a Service of all test pods, over
// and over, by each of its addresses and by name, and returns the URLs. They
// write what they see to their logs, since nobody can ask them without an API.
func (r *Run) clients() (urls []string, err error) {
	r.after(func() error {
		_, err := r.kubectl("delete", "service/everyone", "daemonset/asking", "--ignore-not-found", "--timeout=60s")
		return err
	})
	err = r.apply(`
apiVersion: v1
kind: Service
metadata: {name: everyone}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: pod}
  ports: [{port: 80, targetPort: 8080}]
`)
	if err != nil {
		return nil, err
	}
	addresses, err := r.clusterIPs("everyone")
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		urls = append(urls, "http://"+netip.AddrPortFrom(a, 80).String()+"/hostname")
	}
	urls = append(urls, "http://everyone."+r.Namespace+".svc.cluster.local/hostname")
	// It is ready when each URL was answered.
	err = r.apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: asking}
spec:
  selector: {matchLabels: {app: asking}}
  template:
    metadata: {labels: {app: asking}}
    spec:
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists}]
      containers:
      - name: asking
        image: agnhost
        imagePullPolicy: IfNotPresent
        readinessProbe: {exec: {command: [test, -e, /tmp/answered]}, periodSeconds: 1}
        command: [sh, -c]
        args:
        - |
          while all=yes; do
            for url in %s; do
              if took=$(curl -sS -g -o /dev/null --fail --max-time 10 -w '%%{time_total}' $url 2>/tmp/error); then
                echo "answered $url $took"
              else
                echo "unanswered $url $(cat /tmp/error) $took"; all=no
              fi
            done
            if test $all = yes; then touch /tmp/answered; else rm -f /tmp/answered; fi
            sleep 0.3
          done
`, strings.Join(urls, " ")))
	if err != nil {
		return nil, err
	}
	_, err = r.kubectl("rollout", "status", "daemonset/asking", "--timeout=90s")
	return urls, err
}

// asked reads what the clients have seen between two times. Each has to have
// asked each URL again and again, and to have had an answer always. It returns
// the number of requests. Afterwards all clients get answers, too; in between
// they may not, while the cluster takes nodes for lost, and the pods on them.
func (r *Run) asked(urls []string, from, to time.Time) (requests int, err error) {
	if _, err := r.kubectl("rollout", "status", "daemonset/asking", "--timeout=90s"); err != nil {
		return 0, err
	}
	clients, err := r.pods("app=asking")
	if err != nil {
		return 0, err
	}
	if len(clients) != len(r.Lab.Plan().Machines) {
		return 0, fmt.Errorf("%d clients on %d nodes", len(clients), len(r.Lab.Plan().Machines))
	}
	var errs []error
	for _, p := range clients {
		log, err := r.kubectl("logs", p.Name, "--timestamps")
		if err != nil {
			return 0, err
		}
		answered, unanswered, err := readAnswers(log, from, to)
		if err != nil {
			return 0, err
		}
		for _, line := range unanswered {
			errs = append(errs, fmt.Errorf("on %s: %s", p.Node, line))
		}
		for _, url := range urls {
			requests += answered[url]
			if wanted := max(1, int(to.Sub(from)/(5*time.Second))); answered[url] < wanted {
				errs = append(errs, fmt.Errorf("on %s, %s was answered %d times in %s, want at least %d", p.Node, url, answered[url], to.Sub(from).Round(time.Second), wanted))
			}
		}
	}
	return requests, errors.Join(errs...)
}

// readAnswers reads a client's log, of lines like
//
//	2026-11-23T10:00:10.1Z answered http://… 0.002
//	2026-11-23T10:00:21.3Z unanswered http://… curl: (28) Connection timed out … 10.001
//
// that end with the seconds that the request took. Of those that began between
// two times it counts the answers by URL, and returns the other lines.
func readAnswers(log string, from, to time.Time) (answered map[string]int, unanswered []string, err error) {
	answered = map[string]int{}
	for line := range strings.Lines(log) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			return nil, nil, fmt.Errorf("reading a client's log: unexpected line %q", line)
		}
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		if err != nil {
			return nil, nil, fmt.Errorf("reading a client's log: %w", err)
		}
		took, err := time.ParseDuration(fields[len(fields)-1] + "s")
		if err != nil {
			return nil, nil, fmt.Errorf("reading a client's log: %w", err)
		}
		if begin := at.Add(-took); begin.Before(from) || !begin.Before(to) {
			continue
		}
		if fields[1] == "answered" {
			answered[fields[2]]++
		} else {
			unanswered = append(unanswered, strings.TrimSpace(line))
		}
	}
	return answered, unanswered, nil
}
