package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// kept is a network whose reservations are on a disk, where they outlive their pods
// when the machine reboots. It has a single address.
const kept = `{"cniVersion": "1.0.0", "name": "kept", "type": "flatnet",
"ipam": {"dataDir": "/var/lib/kept", "ranges": [[{"subnet": "10.99.0.0/29", "rangeStart": "10.99.0.2", "rangeEnd": "10.99.0.2"}]]}}`

// keepAddress attaches a pod to that network.
func keepAddress(boot int) error {
	n, err := netlab.NewNamespace(fmt.Sprintf("kept-%d", boot))
	if err != nil {
		return err
	}
	return command(fmt.Sprintf("CNI_COMMAND=ADD CNI_CONTAINERID=%s CNI_NETNS=%s CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin /opt/cni/bin/flatnet <<'E'\n%s\nE", n.Name, n.Path, kept))
}

// afterReboot looks at a machine on which pods ran before it was booted again, with
// flatnetd started by systemd, before there is an underlay.
func afterReboot() error {
	tell(inRow(rebootRow+": nothing stale", nothingStale))
	tell(inRow(rebootRow+": an address kept on a disk", func() error { return keepAddress(2) }))
	l, err := newLab(2)
	if err != nil {
		return err
	}
	tell(inRow(rebootRow+": flatnetd runs before the network", func() error {
		return until("flatnetd", time.Minute, func() error {
			status, err := ask()
			if err == nil && status.NotReady == "" {
				err = errors.New("is ready without an address of its node")
			}
			if err == nil {
				say("    not ready: %s", status.NotReady)
			}
			return err
		})
	}))
	tell(inRow(rebootRow+": a pod before the network", func() error { return l.addPod("early", "n1", false) }))
	if err := errors.Join(l.startAPI(), l.startOthers(), underlay()); err != nil {
		return err
	}
	begin := time.Now()
	tell(inRow(rebootRow+": flatnetd is ready after the network is there", func() error {
		return until("flatnetd", time.Minute, func() error {
			status, err := ask()
			if err == nil && !status.Ready {
				err = errors.New(status.NotReady)
			}
			return err
		})
	}))
	tell(inRow(rebootRow+": all paths, with new pods", l.populate))
	say("    %d ms after the network was there", time.Since(begin)/time.Millisecond)
	stop := make(chan struct{})
	defer close(stop)
	for _, p := range l.paths {
		go p.probe(l.pace, stop)
	}
	tell(l.do(row{name: rebootRow + ": DEL of the pods before", action: func() error {
		l.boot = 1
		defer func() { l.boot = 2 }()
		var errs []error
		for _, name := range []string{"a", "b"} {
			p := *l.pods[name]
			p.Namespace = &netlab.Namespace{Name: p.Name, Path: p.Path + "-before"} // is there no more
			errs = append(errs, l.del(&p))
		}
		return errors.Join(errs...)
	}}))
	return nil
}

// inRow makes a row of a check without probes.
func inRow(name string, f func() error) Report {
	begin := time.Now()
	err := f()
	r := Report{Row: name, Took: int(time.Since(begin) / time.Millisecond)}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// nothingStale fails if pods of before the boot are visible.
func nothingStale() error {
	var errs []error
	links, err := output("ip -o link show group 70")
	errs = append(errs, err)
	if strings.Contains(links, "veth") {
		errs = append(errs, fmt.Errorf("interfaces are there: %s", links))
	}
	for _, directory := range []string{"/run/flatnet/attachments", "/run/flatnet/ipam/flatnet"} {
		entries, err := os.ReadDir(directory)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "10.") || strings.HasPrefix(e.Name(), "fd") || strings.HasSuffix(e.Name(), ".json") {
				errs = append(errs, fmt.Errorf("%s has %s", directory, e.Name()))
			}
		}
	}
	return errors.Join(errs...)
}
