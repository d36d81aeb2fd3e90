package scenarios

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/plan"
	"github.com/flatnet-cni/flatnet/test/e2e/programs"
)

// release is where Helm keeps what it knows: not in flatnet's namespace, which comes and goes.
const release = "--namespace=kube-system"

// chart has Helm take over what kubectl installed, upgrades it with another setting, removes
// it and installs it again, while pods are pinged. Pods start without it, too.
func (r *Run) chart(build func(context.Context, []programs.Program) error) (string, error) {
	directory, err := r.Lab.Kustomization()
	if err != nil {
		return "", err
	}
	if err := build(r, []programs.Program{programs.Helm()}); err != nil {
		return "", err
	}
	pings, err := r.ping(scene)
	if err != nil {
		return "", err
	}
	r.after(func() error {
		if err := r.uninstall(); err != nil {
			return err
		}
		_, err := r.Lab.Kubectl("apply", "-k", directory)
		return err
	})
	begin := time.Now()
	if err := r.helm("install", "--take-ownership", "--set", chartValues(r.Lab.Plan())); err != nil {
		return "", fmt.Errorf("taking over: %w", err)
	}
	before, err := r.agents()
	if err != nil {
		return "", err
	}
	if err := r.helm("upgrade", "--reset-then-reuse-values", "--set", "log.level=debug"); err != nil {
		return "", err
	}
	now, err := r.agents()
	if err != nil {
		return "", err
	}
	for _, p := range now {
		if slices.ContainsFunc(before, func(old pod) bool { return old.UID == p.UID }) {
			return "", fmt.Errorf("a setting is another one, and %s on %s was not replaced", p.Name, p.Node)
		}
	}
	if err := r.uninstall(); err != nil {
		return "", err
	}
	if left, err := r.agents(); err != nil || len(left) > 0 {
		return "", fmt.Errorf("the chart is removed, and %d pods of it are there: %w", len(left), err)
	}
	if _, err := r.newPod(scene); err != nil {
		return "", fmt.Errorf("without flatnetd: %w", err)
	}
	if err := r.helm("install", "--set", chartValues(r.Lab.Plan())); err != nil {
		return "", err
	}
	took := time.Since(begin)
	if _, err := r.newPod(scene); err != nil {
		return "", err
	}
	summary, err := pings.stop(patience)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; taken over, upgraded, removed and installed in %.1f s", summary, took.Seconds()), r.agree(scene)
}

// helm installs or upgrades the chart, and waits until flatnet is on all nodes.
func (r *Run) helm(verb string, args ...string) error {
	chart := filepath.Join(r.Lab.Repository, "deploy", "chart")
	if _, err := r.Lab.Helm(append([]string{verb, "flatnet", chart, release, "--wait", "--timeout=2m"}, args...)...); err != nil {
		return err
	}
	return r.agentsReady() // Helm is content when most are
}

func (r *Run) uninstall() error {
	_, err := r.Lab.Helm("uninstall", "flatnet", release, "--ignore-not-found", "--wait", "--timeout=2m")
	return err
}

// chartValues are those that make what the cluster's flatnet was installed from.
func chartValues(c plan.Cluster) string {
	set := "fabric.mode=" + c.Options.Fabric + ",fabric.datapath=" + c.Options.Datapath
	if c.Options.Proxy == "none" {
		set += fmt.Sprintf(",services.enabled=true,apiServer.host=%s,apiServer.port=%d", c.API(), plan.APIPort)
	}
	return set
}
