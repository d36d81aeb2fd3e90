package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/install"
)

// request returns what a container runtime would execute the plugin with.
func (a *Agent) request(verb string) (*cni.Request, error) {
	raw, err := install.Conflist(a.network, false)
	if err != nil {
		return nil, err
	}
	var list struct {
		Plugins []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("reading own configuration: %w", err)
	}
	const version = "1.1.0" // the first with GC
	config := list.Plugins[0]
	config["name"], config["cniVersion"] = a.network.Name, version
	if raw, err = json.Marshal(config); err != nil {
		return nil, fmt.Errorf("encoding configuration: %w", err)
	}
	return &cni.Request{Command: verb, Path: a.config.BinDir, Version: version, Network: a.network.Name, Config: raw}, nil
}

// verbTimeout is as long as the plugin itself would take at most.
const verbTimeout = 30 * time.Second

// collect removes attachments and reservations whose pod provably is gone.
// Runtimes should do that with DEL and GC, and after a crash some do not.
func (a *Agent) collect(ctx context.Context) error {
	if len(a.network.PodCIDRs) == 0 {
		return errNotYet
	}
	r, err := a.request("GC")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	before, err := a.reservations(ctx)
	if err != nil {
		return err
	}
	if err := a.plugin.GC(ctx, r); err != nil {
		return fmt.Errorf("collecting what pods left behind: %w", err)
	}
	after, err := a.reservations(ctx)
	if err != nil {
		return err
	}
	if after < before {
		a.metrics.collected.Add(float64(before - after))
		a.log.Info("freed addresses of pods that are gone", "count", before-after)
	}
	return nil
}

// restorePods mends what somebody has taken from pods' attachments.
func (a *Agent) restorePods(ctx context.Context) error {
	if len(a.network.PodCIDRs) == 0 {
		return errNotYet
	}
	r, err := a.request("RESTORE")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	repairs, err := a.plugin.Restore(ctx, r)
	for _, object := range repairs {
		a.metrics.repairs.WithLabelValues("pod").Inc()
		a.log.Warn("repaired what somebody had changed", "object", object)
	}
	if err != nil {
		return fmt.Errorf("restoring pods' attachments: %w", err)
	}
	return a.findOutsiders()
}
