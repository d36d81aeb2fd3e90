package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDropIns(t *testing.T) {
	var got strings.Builder
	for _, d := range dropIns(Needs{Tunnel: "flatnet.vx", HostInterfacePrefix: "veth"}) {
		got.WriteString("--- " + d.path + "\n" + d.content)
	}
	wantText(t, "drop-ins", got.String(), `--- /run/systemd/network/05-flatnet.network
# Written by flatnetd, which also removes it (flatnetd cleanup).
# The interfaces of pods and of the tunnel are flatnet's to configure.
[Match]
Name=flatnet.vx veth[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]

[Link]
Unmanaged=yes
--- /run/systemd/networkd.conf.d/05-flatnet.conf
# Written by flatnetd, which also removes it (flatnetd cleanup).
# Routes and rules that networkd did not make are not networkd's to remove.
[Network]
ManageForeignRoutes=no
ManageForeignRoutingPolicyRules=no
--- /run/NetworkManager/conf.d/flatnet.conf
# Written by flatnetd, which also removes it (flatnetd cleanup).
# The interfaces of pods and of the tunnel are flatnet's to configure.
[keyfile]
unmanaged-devices+=interface-name:=flatnet.vx;interface-name:veth???????????
`)
}

// TestMatchedNames: our interfaces are matched and those of others are not.
func TestMatchedNames(t *testing.T) {
	files := dropIns(Needs{Tunnel: "flatnet.vx", HostInterfacePrefix: "veth"})
	_, names, _ := strings.Cut(files[0].content, "\nName=")
	names, _, _ = strings.Cut(names, "\n")
	for name, want := range map[string]bool{
		"flatnet.vx": true, "veth0123456789a": true, "vethfffffffffff": true,
		"veth0a1b2c3": false /* docker's */, "veth0123456789": false, "veth0123456789g": false, "flatnet.vx2": false, "eth0": false,
	} {
		matched := false
		for _, pattern := range strings.Fields(names) {
			ok, err := filepath.Match(pattern, name)
			if err != nil {
				t.Fatal(err)
			}
			matched = matched || ok
		}
		if matched != want {
			t.Errorf("%s matches is %v, want %v", name, matched, want)
		}
	}
}

// files lists the regular files below a directory.
func files(t *testing.T, directory string) []string {
	t.Helper()
	var all []string
	if err := filepath.WalkDir(directory, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			relative, _ := filepath.Rel(directory, path)
			all = append(all, relative)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDropInsKept(t *testing.T) {
	k := &Keeper{Root: t.TempDir()}
	needs := Needs{Tunnel: "flatnet.vx", HostInterfacePrefix: "veth"}
	wantWell(t, k, needs) // no manager is in use
	if found := files(t, k.Root); len(found) > 0 {
		t.Errorf("files without a manager: %v", found)
	}
	for _, directory := range []string{"run/systemd/netif", "run/NetworkManager", "run/systemd/network"} {
		if err := os.MkdirAll(filepath.Join(k.Root, directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(k.Root, "run/systemd/network/05-other.network")
	if err := os.WriteFile(other, []byte("[Match]\nName=eth0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	found := k.Apply(context.Background(), needs)
	wantText(t, "first", text(found), ""+
		"systemd-networkd drop-in /run/systemd/network/05-flatnet.network: missing, wanted as flatnet needs it, repaired\n"+
		"systemd-networkd drop-in /run/systemd/networkd.conf.d/05-flatnet.conf: missing, wanted as flatnet needs it, repaired\n"+
		"NetworkManager drop-in /run/NetworkManager/conf.d/flatnet.conf: missing, wanted as flatnet needs it, repaired\n")
	for i, want := range []string{"networkctl reload", "systemctl restart systemd-networkd", "nmcli general reload"} {
		if !strings.Contains(found[i].Hint, want) {
			t.Errorf("hint %q does not say %q", found[i].Hint, want)
		}
	}
	path := k.path("/run/systemd/network/05-flatnet.network")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("networkd runs as a user of its own and could not read %v (%v)", info.Mode(), err)
	}
	wantWell(t, k, needs)
	if err := os.WriteFile(path, []byte("[Match]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantText(t, "damaged", text(k.Apply(context.Background(), needs)),
		"systemd-networkd drop-in /run/systemd/network/05-flatnet.network: different, wanted as flatnet needs it, repaired\n")
	wantWell(t, k, needs)
	if got := len(files(t, k.Root)); got != 4 {
		t.Errorf("there are files beside the drop-ins: %v", files(t, k.Root))
	}
	for range 2 { // there is nothing to remove the second time
		if err := k.removeDropIns(); err != nil {
			t.Fatal(err)
		}
		if left := strings.Join(files(t, k.Root), " "); left != "run/systemd/network/05-other.network" {
			t.Errorf("left after removal: %s", left)
		}
	}
}

// TestDropInProblem: the place of the file cannot be written.
func TestDropInProblem(t *testing.T) {
	k := &Keeper{Root: t.TempDir()}
	if err := os.MkdirAll(k.path("/run/NetworkManager"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.path("/run/NetworkManager/conf.d"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	found := k.Apply(context.Background(), Needs{HostInterfacePrefix: "veth"})
	if len(found) != 1 || found[0].Repaired || found[0].Problem == "" || !strings.Contains(found[0].Hint, "unmanaged-devices+=interface-name:veth???????????") {
		t.Errorf("findings: %+v", found)
	}
	if _, err := os.Stat(k.path("/run/NetworkManager/conf.d/flatnet.conf")); !errors.Is(err, fs.ErrNotExist) && err == nil {
		t.Error("the file was written")
	}
}
