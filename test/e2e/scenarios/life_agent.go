package scenarios

import (
	"fmt"
	"slices"
	"time"
)

// agents are the pods of flatnetd.
func (r *Run) agents() ([]pod, error) {
	return r.list("--all-namespaces", "-l", "app.kubernetes.io/name=flatnetd")
}

// update replaces all pods of flatnetd, as a new version does, while pods are
// pinged.
func update(r *Run) (string, error) {
	before, err := r.agents()
	if err != nil {
		return "", err
	}
	pings, err := r.ping(scene)
	if err != nil {
		return "", err
	}
	begin := time.Now()
	if _, err := r.Lab.Kubectl("-n", "flatnet", "rollout", "restart", "daemonset/flatnetd"); err != nil {
		return "", err
	}
	if err := r.agentsReady(); err != nil {
		return "", err
	}
	took := time.Since(begin)
	summary, err := pings.stop(patience)
	if err != nil {
		return "", err
	}
	now, err := r.agents()
	if err != nil {
		return "", err
	}
	if nodes := len(r.Lab.Plan().Machines); len(now) != nodes {
		return "", fmt.Errorf("%d pods of flatnetd on %d nodes", len(now), nodes)
	}
	for _, p := range now {
		if slices.ContainsFunc(before, func(old pod) bool { return old.UID == p.UID }) {
			return "", fmt.Errorf("%s on %s was not replaced", p.Name, p.Node)
		}
	}
	return fmt.Sprintf("%s; %d agents replaced in %.1f s", summary, len(now), took.Seconds()), r.agree(scene)
}

// reinstall deletes what the cluster's flatnet was installed from, and applies
// it again, while pods are pinged. Pods start without it, too.
func reinstall(r *Run) (string, error) {
	directory, err := r.Lab.Kustomization()
	if err != nil {
		return "", err
	}
	pings, err := r.ping(scene)
	if err != nil {
		return "", err
	}
	r.after(func() error {
		_, err := r.Lab.Kubectl("apply", "-k", directory)
		return err
	})
	begin := time.Now()
	if _, err := r.Lab.Kubectl("delete", "-k", directory, "--timeout=90s"); err != nil {
		return "", err
	}
	if left, err := r.agents(); err != nil || len(left) > 0 {
		return "", fmt.Errorf("flatnet is deleted, and %d pods of it are there: %w", len(left), err)
	}
	without, err := r.newPod(scene)
	if err != nil {
		return "", fmt.Errorf("without flatnetd: %w", err)
	}
	if _, err := r.Lab.Kubectl("apply", "-k", directory); err != nil {
		return "", err
	}
	if err := r.agentsReady(); err != nil {
		return "", err
	}
	took := time.Since(begin)
	with, err := r.newPod(scene)
	if err != nil {
		return "", err
	}
	summary, err := pings.stop(patience)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; deleted and applied in %.1f s; a new pod was ready after %.1f s without, and %.1f s with flatnetd", summary, took.Seconds(), without.Seconds(), with.Seconds()), r.agree(scene)
}
