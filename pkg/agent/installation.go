package agent

import (
	"context"
	"errors"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/install"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// installation is the feature that puts the plugin and its configuration in place.
type installation struct {
	ownNetwork
	installer *install.Installer
	task      *feature.Task

	followed followed
	// written is the network whose configuration was written: what has to be
	// written of the same one again is a repair.
	written install.Network
	disk    []install.Finding
}

func newInstallation(c Config, s *feature.Shared) *installation {
	f := &installation{ownNetwork: ownNetwork{s, c}, installer: &install.Installer{Log: s.Log, SourceDir: c.PluginsDir, BinDir: c.BinDir, ConfDir: c.ConfDir}}
	f.task = &feature.Task{
		Name: "install", Run: s.OncePlanned(f.install), Gap: 200 * time.Millisecond, Every: c.Resync,
		Advice: "look at --plugins-dir, --cni-bin-dir and --cni-conf-dir: whether they are there, have space and can be written",
		Breaks: []problem.Thing{problem.Installing},
	}
	return f
}

func (f *installation) feature() feature.Feature {
	return feature.Feature{
		Tasks: []*feature.Task{f.task}, Follow: f.follow,
		Listeners: []feature.Listener{{Name: "directories of the plugin", Run: func(ctx context.Context) error { return f.installer.Watch(ctx, f.task.Ask) }}},
		Problems:  func() []problem.Problem { return install.Problems(f.config.NodeName, f.disk) },
		Ready:     f.ready,
		Repairs:   []string{"installation"},
		// Without the configuration no pod is attached.
		Cleanup: feature.Removal{At: feature.BeforePods, Do: func(context.Context) ([]string, error) { return f.installer.Remove() }},
	}
}

func (f *installation) follow(n feature.News) error {
	if n == feature.FabricMade || (n == feature.FabricJoined || n == feature.PathChanged) && f.followed.change(f.network()) {
		f.task.Soon()
	}
	return nil
}

// install compares binaries and configuration, and mends them, once the node can
// serve pods.
func (f *installation) install(ctx context.Context) error {
	network := f.network()
	if !f.Made || len(network.PodCIDRs) == 0 {
		return feature.ErrNotYet
	}
	changes, err := f.installer.Sync(ctx, network)
	if equalNetworks(f.written, network) {
		f.Repaired("installation", len(changes))
	}
	if err == nil {
		f.written = network
	}
	f.disk = f.installer.Check(network)
	return err
}

func (f *installation) ready() error {
	if f.task.Done() {
		return nil
	}
	if err := f.task.Err(); err != nil {
		return err
	}
	return errors.New("the plugin is not installed yet")
}
