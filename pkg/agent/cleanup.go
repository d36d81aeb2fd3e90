package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/host"
	"github.com/flatnet-cni/flatnet/pkg/install"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/masquerade"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/rules"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// cleanupPatience is how long another flatnetd may take to end. What the cleanup itself
// takes is for its caller to judge: half of one helps nobody.
const cleanupPatience = 10 * time.Second

// Cleanup removes everything that flatnet ever made on the node, pods'
// interfaces included, and nothing else; it returns what it removed, a line
// each. What fails does not keep the rest from being removed. Sysctls stay as
// they are: others may rely on them by now.
func Cleanup(ctx context.Context, c Config, log *slog.Logger) (removed []string, err error) {
	// What only the lock brings is not flatnet's of before.
	var own []string
	for _, path := range []string{c.StateDir, lockPath(c.StateDir)} {
		if _, err := os.Lstat(path); err != nil {
			own = append(own, path)
		}
	}
	waiting, enough := context.WithTimeout(ctx, cleanupPatience)
	lock, err := lockNode(waiting, c.StateDir, log)
	enough()
	if err != nil {
		return nil, fmt.Errorf("%w: stop it first, or it would make everything anew", err)
	}
	defer lock.Close()
	var errs []error
	note := func(what []string, err error) {
		removed = append(removed, what...)
		errs = append(errs, err)
	}
	// The configuration first: without it no pod is attached meanwhile.
	installer := &install.Installer{Log: log, SourceDir: c.PluginsDir, BinDir: c.BinDir, ConfDir: c.ConfDir}
	note(installer.Remove())
	note(removePods(c.StateDir))
	note(removeFabric(c.Fabric.Tunnel))
	if (requirements.Running{}).HasNftables() {
		note(removeTables())
		note(service.Remove())
	}
	hostKeeper := &host.Keeper{Log: log, Sysctls: c.SysctlDir}
	errs = append(errs, hostKeeper.Remove(ctx))
	note(removeState(c.StateDir))
	removed = slices.DeleteFunc(removed, func(what string) bool { return slices.Contains(own, what) })
	return removed, errors.Join(errs...)
}

// removePods deletes the host interfaces of pods, which takes the pods' ends
// along, and the gateways that the node answers to.
func removePods(stateDir string) (removed []string, err error) {
	k, err := kernel.NewNetlink(nil)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	links, err := k.LinksOfGroup()
	if err != nil {
		return nil, err
	}
	records, err := attachment.OpenDirectory(stateDir).List("")
	errs := []error{err}
	recorded := map[string]attachment.Record{}
	for _, r := range records {
		recorded[r.Wire.Host.Name] = r
	}
	for _, link := range links {
		r, known := recorded[link.Name]
		if _, ours := attachment.KeyOf(link.Alias); !ours && !(known && r.Owns(link.Alias)) {
			continue
		}
		if err := k.DeleteLink(kernel.Host, link.Name); err != nil {
			errs = append(errs, fmt.Errorf("deleting interface %s: %w", link.Name, err))
			continue
		}
		text := "interface " + link.Name
		if r.Pod != "" {
			text += " of pod " + r.Pod
		}
		removed = append(removed, text)
		// A kernel that cannot forget is no reason to keep the rest.
		if err := kernel.ForgetConnections(r.Wire.Addresses); err != nil && !requirements.Check(requirements.Running{}, requirements.Forgetting).Lacks(requirements.Forgetting) {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(append(errs, k.RemoveAnswered())...)
}

func removeFabric(tunnel string) (removed []string, err error) {
	k, err := kernel.NewFabric(tunnel)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	engine := fabric.NewEngine(k)
	result, err := engine.Sync(&fabric.Plan{})
	for _, c := range result.Changes {
		removed = append(removed, c.Object.String())
	}
	for _, f := range engine.Failures() {
		err = errors.Join(err, f.Err)
	}
	return removed, err
}

func removeTables() (removed []string, err error) {
	keeper := &masquerade.Keeper{}
	defer keeper.Close()
	there, err := keeper.Remove()
	if err != nil {
		return nil, err
	}
	removed, err = (&rules.Rules{}).RemoveAll()
	if there {
		removed = append(removed, "nftables table inet flatnet")
	}
	return removed, err
}

// removeState removes the files below the state directory: records,
// reservations, sockets. Another process may have its files there too, if a
// user chose the directory so: what is not flatnet's stays, and the directory.
func removeState(stateDir string) (removed []string, err error) {
	var errs []error
	for _, name := range []string{"attachments", "ipam", "shared.lock", "flatnetd.sock", "flatnetd.lock"} {
		path := filepath.Join(stateDir, name)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("removing %s: %w", path, err))
			continue
		}
		removed = append(removed, path)
	}
	if err := os.Remove(stateDir); err == nil {
		removed = append(removed, stateDir)
	}
	return removed, errors.Join(errs...)
}
