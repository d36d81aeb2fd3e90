package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/plugin"
)

// collection is the feature that removes attachments and reservations whose pod
// provably is gone. Runtimes should do that with DEL and GC, and after a crash some
// do not.
type collection struct {
	ownNetwork
	plugin    *plugin.Plugin
	task      *feature.Task
	collected prometheus.Counter
}

func newCollection(c Config, s *feature.Shared) *collection {
	f := &collection{ownNetwork: ownNetwork{s, c}, plugin: &plugin.Plugin{Sysctls: c.SysctlDir}, collected: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "flatnet_collected_total", Help: "Reservations that were freed because their pod is gone.",
	})}
	f.task = &feature.Task{
		Name: "collect", Run: f.collect, Gap: time.Second, Every: c.Collect,
		Advice: "addresses of pods that are gone stay reserved until this works: look at --state-dir, whether it has space and can be written",
	}
	return f
}

func (f *collection) feature() feature.Feature {
	first := true
	return feature.Feature{
		Tasks: []*feature.Task{f.task}, Metrics: []prometheus.Collector{f.collected},
		Follow: func(n feature.News) error {
			if first && n == feature.FabricJoined {
				first = false
				f.task.Soon()
			}
			return nil
		},
	}
}

func (f *collection) collect(ctx context.Context) error {
	r, err := f.request("GC")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	before, err := f.reservations(ctx)
	if err != nil {
		return err
	}
	if err := f.plugin.GC(ctx, r); err != nil {
		return fmt.Errorf("collecting what pods left behind: %w", err)
	}
	after, err := f.reservations(ctx)
	if err != nil {
		return err
	}
	if after < before {
		f.collected.Add(float64(before - after))
		f.Log.Info("freed addresses of pods that are gone", "count", before-after)
	}
	return nil
}
