package scenarios

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/images"
	"github.com/flatnet-cni/flatnet/test/e2e/lab"
)

// crowd starts pods on one node; they are removed after the scenario at the
// latest. It returns them when all are ready.
func (r *Run) crowd(name, node string, replicas int) ([]pod, error) {
	r.after(func() error { return r.disperse(name) })
	err := r.apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      nodeSelector: {kubernetes.io/hostname: %[2]s}
      containers:
      - {name: pause, image: "%[4]s", imagePullPolicy: IfNotPresent}
`, name, node, replicas, images.Pause))
	if err != nil {
		return nil, err
	}
	if _, err := r.kubectl("rollout", "status", "deployment/"+name, "--timeout=120s"); err != nil {
		return nil, err
	}
	all, err := r.pods("app=" + name)
	if err != nil {
		return nil, err
	}
	// Where the controller made too many, some end already.
	all = slices.DeleteFunc(all, func(p pod) bool { return p.Ending })
	if len(all) != replicas || slices.ContainsFunc(all, func(p pod) bool { return p.Node != node || !p.Ready }) {
		return nil, fmt.Errorf("%d pods of %s, want %d on %s, all ready: %v", len(all), name, replicas, node, all)
	}
	return all, nil
}

// disperse removes what crowd has made, and waits for the end of all pods.
func (r *Run) disperse(name string) error {
	if _, err := r.kubectl("delete", "deployment", name, "--ignore-not-found", "--timeout=60s"); err != nil {
		return err
	}
	_, err := r.kubectl("wait", "--for=delete", "pod", "-l", "app="+name, "--timeout=120s")
	return err
}

func burst(r *Run) (string, error) {
	const pods = 60
	from, err := r.testPods(false)
	if err != nil {
		return "", err
	}
	if err := r.agree(scene); err != nil {
		return "", err
	}
	before, err := r.holdings(scene)
	if err != nil {
		return "", err
	}

	begin := time.Now()
	all, err := r.crowd("burst", scene, pods)
	if err != nil {
		return "", err
	}
	ready := time.Since(begin)
	// This finds an address that two have, too.
	if err := r.agree(scene); err != nil {
		return "", err
	}
	for _, p := range from {
		if p.Node == scene || p.Node == elsewhere {
			if err := r.reach(p, all); err != nil {
				return "", err
			}
		}
	}

	begin = time.Now()
	if err := r.disperse("burst"); err != nil {
		return "", err
	}
	err = lab.Until(r, slowestReturn, "nothing to be left of the burst", func() error {
		now, err := r.holdings(scene)
		if err != nil {
			return err
		}
		return now.since(before)
	})
	if err != nil {
		return "", err
	}
	gone := time.Since(begin)
	return fmt.Sprintf("%d pods ready after %.1f s, %d addresses answer on two nodes, nothing left %.1f s after the delete", pods, ready.Seconds(), pods*len(r.Lab.Plan().Pods), gone.Seconds()), r.agree(scene)
}

// restart restarts a service of a node while its pods are pinged.
func (r *Run) restart(service string) (string, error) {
	before, err := r.testPods(false)
	if err != nil {
		return "", err
	}
	pings, err := r.ping(scene)
	if err != nil {
		return "", err
	}
	r.after(func() error { return r.Lab.Order(scene, "start", service) })
	if err := r.Lab.Order(scene, "restart", service); err != nil {
		return "", err
	}
	ready, err := r.newPod(scene)
	if err != nil {
		return "", err
	}
	summary, err := pings.stop(patience)
	if err != nil {
		return "", err
	}
	if err := r.settled(before); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; a new pod was ready after %.1f s", summary, ready.Seconds()), r.agree(scene)
}

func reboot(r *Run) (string, error) {
	from, err := r.testPod(elsewhere)
	if err != nil {
		return "", err
	}
	if _, err := r.crowd("survivors", scene, 10); err != nil {
		return "", err
	}
	if err := r.agree(scene); err != nil {
		return "", err
	}
	before, err := r.onNode(scene)
	if err != nil {
		return "", err
	}
	r.after(func() error {
		if _, err := r.Lab.PID(scene); err == nil {
			return nil
		}
		return r.Lab.Reboot(scene)
	})
	begin := time.Now()
	if err := r.Lab.Reboot(scene); err != nil {
		return "", err
	}
	var now []pod
	err = lab.Until(r, slowestReturn, "the pods of "+scene+" to come back", func() (err error) {
		if now, err = r.onNode(scene); err != nil {
			return err
		}
		return startedAnew(before, now)
	})
	if err != nil {
		return "", err
	}
	back := time.Since(begin)
	if err := r.nodesReady(begin); err != nil {
		return "", err
	}
	if err := r.agree(scene); err != nil {
		return "", err
	}
	attached := slices.DeleteFunc(slices.Clone(now), func(p pod) bool { return p.OnHost })
	if err := r.reach(from, attached); err != nil {
		return "", err
	}
	if err := r.disperse("survivors"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d pods were back after %.1f s, in new sandboxes; addresses held are theirs", len(now), back.Seconds()), r.agree(scene)
}

// startedAnew fails unless each of the pods is there and ready, and none of its
// containers is one of before.
func startedAnew(before, now []pod) error {
	var errs []error
	for _, old := range before {
		i := slices.IndexFunc(now, func(p pod) bool { return p.UID == old.UID })
		switch {
		case i < 0:
			errs = append(errs, fmt.Errorf("pod %s/%s is not there", old.Namespace, old.Name))
		case !now[i].Ready || slices.ContainsFunc(now[i].Containers, func(id string) bool { return slices.Contains(old.Containers, id) }):
			errs = append(errs, fmt.Errorf("pod %s/%s has not come back", old.Namespace, old.Name))
		}
	}
	return errors.Join(errs...)
}
