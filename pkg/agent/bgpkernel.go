package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/bgp"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// seed notes the routes that a run before has left: they are kept until neighbours have told
// all that they have, or their time is over. The configuration has to be known by then.
func (f *routing) seed() error {
	f.file.Read()
	f.current, _ = f.file.Config()
	if f.current == nil {
		return nil
	}
	k, err := kernel.NewFabric(f.config.Fabric.Tunnel)
	if err != nil {
		return err
	}
	defer k.Close()
	objects, err := k.List()
	if err != nil {
		return fmt.Errorf("reading the routes of a run before: %w", err)
	}
	for _, o := range objects {
		r, is := o.(kernel.Route)
		if !is || r.Unreachable || r.Table != 0 || r.Link == f.config.Fabric.Tunnel {
			continue
		}
		hops := r.Hops.All()
		if r.Gateway.IsValid() {
			hops = append(hops, kernel.Hop{Gateway: r.Gateway, Link: r.Link})
		}
		var gateways []netip.Addr
		for _, h := range hops {
			if h.Gateway.IsLinkLocalUnicast() {
				h.Gateway = h.Gateway.WithZone(h.Link)
			}
			gateways = append(gateways, h.Gateway)
		}
		f.table.Seed(r.Destination, gateways)
	}
	if f.table.Seeded() {
		f.stale[""] = time.Now().Add(time.Duration(f.current.RestartTime))
	}
	return nil
}

// bgpStateFile, in the state directory, has whom the node has told of itself, so that the
// cleanup can tell them that it is over. Passwords are not in it, but where they are.
const bgpStateFile = "bgp.json"

// save writes it where it has changed.
func (f *routing) save(d bgp.Desired) {
	if f.unsaved == nil && f.wanted != nil && f.wanted.Global == d.Global && reflect.DeepEqual(f.wanted.Neighbours, d.Neighbours) {
		return
	}
	path := filepath.Join(f.config.StateDir, bgpStateFile)
	fresh := path + ".fresh"
	d.Announce = bgp.Announcement{}
	raw, err := json.Marshal(d)
	if err == nil {
		err = os.WriteFile(fresh, raw, 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if f.unsaved = err; err != nil {
		f.unsaved = fmt.Errorf("noting the peers for a cleanup: %w", err)
	}
}

// withdrawTime is how long neighbours may take to be reached by a cleanup.
const withdrawTime = 15 * time.Second

// withdraw tells neighbours of a run before that there is nothing here any more.
func (f *routing) withdraw(ctx context.Context) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(f.config.StateDir, bgpStateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var d bgp.Desired
	if err == nil {
		err = json.Unmarshal(raw, &d)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the peers of a run before: %w", err)
	}
	if len(d.Neighbours) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, withdrawTime)
	defer cancel()
	told, err := bgp.Withdraw(ctx, filepath.Join(f.config.PluginsDir, bgpProgram), d, f.Log)
	var removed []string
	for _, name := range told {
		removed = append(removed, "announcements to "+name)
	}
	if err != nil {
		err = fmt.Errorf("withdrawing what BGP peers were told: %w", err)
	}
	return removed, err
}
