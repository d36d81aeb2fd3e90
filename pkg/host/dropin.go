package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// dropIn is a file that tells a network manager to leave flatnet's interfaces
// and routes alone. All are below /run, as pods' interfaces are: after a reboot
// a node without flatnet has nothing of them.
type dropIn struct {
	manager string // as people know it
	runs    string // a directory that exists where the manager is in use
	path    string
	content string
	hint    string // what makes the manager read it
}

// dropIns returns the files for the needs, for all managers that there are.
func dropIns(n Needs) []dropIn {
	const hexDigits = 11
	networkd := n.HostInterfacePrefix + strings.Repeat("[0-9a-f]", hexDigits)
	// NetworkManager knows no ranges; the number of digits keeps others' veth
	// apart (docker's have 7).
	devices := "interface-name:" + n.HostInterfacePrefix + strings.Repeat("?", hexDigits)
	if n.Tunnel != "" {
		networkd = n.Tunnel + " " + networkd
		devices = "interface-name:=" + n.Tunnel + ";" + devices
	}
	const head = "# Written by flatnetd, which also removes it (flatnetd cleanup).\n"
	return []dropIn{
		{
			manager: "systemd-networkd", runs: "/run/systemd/netif",
			path: "/run/systemd/network/05-flatnet.network",
			content: head + "# The interfaces of pods and of the tunnel are flatnet's to configure.\n" +
				"[Match]\nName=" + networkd + "\n\n[Link]\nUnmanaged=yes\n",
			hint: "systemd-networkd reads it with `networkctl reload`, or when it starts; " +
				"until then a .network file with a broad [Match] may apply to flatnet's interfaces",
		},
		{
			manager: "systemd-networkd", runs: "/run/systemd/netif",
			path: "/run/systemd/networkd.conf.d/05-flatnet.conf",
			content: head + "# Routes and rules that networkd did not make are not networkd's to remove.\n" +
				"[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
			hint: "systemd-networkd reads it only when it starts: `systemctl restart systemd-networkd` keeps interfaces and " +
				"addresses; until then it may remove flatnet's routes when it configures an interface, and flatnetd puts them back",
		},
		{
			manager: "NetworkManager", runs: "/run/NetworkManager",
			path: "/run/NetworkManager/conf.d/flatnet.conf",
			content: head + "# The interfaces of pods and of the tunnel are flatnet's to configure.\n" +
				"[keyfile]\nunmanaged-devices+=" + devices + "\n",
			hint: "NetworkManager reads it with `nmcli general reload conf` or `systemctl reload NetworkManager`, or when it " +
				"starts; an unmanaged-devices= in /etc/NetworkManager is read later and takes its place: add to it there",
		},
	}
}

// applyDropIns writes the files of managers that are in use.
func (k *Keeper) applyDropIns(needs Needs) []Finding {
	if needs.HostInterfacePrefix == "" {
		return nil // nothing to tell interfaces of pods from others by
	}
	var findings []Finding
	for _, d := range dropIns(needs) {
		if _, err := os.Stat(k.path(d.runs)); err != nil {
			continue
		}
		f := Finding{Kind: problem.ManagerFile, Object: d.manager + " drop-in " + d.path, Wanted: "as flatnet needs it"}
		present, err := os.ReadFile(k.path(d.path))
		switch {
		case err == nil && string(present) == d.content:
			continue
		case err == nil:
			f.Found = "different"
		case errors.Is(err, os.ErrNotExist):
			f.Found = "missing"
		default:
			f.Found = "unreadable"
		}
		if err := writeFile(k.path(d.path), d.content); err != nil {
			f.Problem = err.Error()
			f.Hint = fmt.Sprintf("let flatnetd write to the node's /run, or write %s by hand:\n%s", d.path, d.content)
		} else {
			f.Repaired, f.Hint = true, d.hint
		}
		findings = append(findings, f)
	}
	return findings
}

// removeDropIns removes the files, whether the managers are in use or not.
func (k *Keeper) removeDropIns() error {
	var errs []error
	for _, d := range dropIns(Needs{}) {
		if err := os.Remove(k.path(d.path)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing %s drop-in: %w", d.manager, err))
		}
	}
	return errors.Join(errs...)
}

// writeFile puts a file in its place at once, so that nobody reads half of it.
// Its temporary name does not end as those do that managers read.
func writeFile(path, content string) error {
	directory := filepath.Dir(path)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return fmt.Errorf("making directory of %s: %w", path, err)
	}
	file, err := os.CreateTemp(directory, ".flatnet-*.tmp")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(file.Name()) // gone already where all went well
	_, err = file.WriteString(content)
	err = errors.Join(err, file.Chmod(0o644), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
