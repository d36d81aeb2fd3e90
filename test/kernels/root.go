package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/kernels/debian"
	"github.com/flatnet-cni/flatnet/test/kernels/initramfs"
	"github.com/flatnet-cni/flatnet/test/kernels/plan"
	"github.com/flatnet-cni/flatnet/test/kernels/suite"
	"github.com/flatnet-cni/flatnet/test/poddevice"
)

// necessary are the programs without which nothing can be tested; a test that
// misses one of the optional says so and is skipped.
var (
	necessary = []string{"ip", "busybox", "kmod", "sysctl", "bash"}
	optional  = []string{
		"nft", "xtables-nft-multi", "xtables-legacy-multi", "bridge", "tc", "conntrack", "ethtool",
		"ping", "nsenter", "unshare", "setpriv", "prlimit", "socat", "curl",
	}
)

// alternatives are names of programs that are links elsewhere, too.
var alternatives = map[string][]string{
	"kmod": {"modprobe", "insmod", "rmmod", "lsmod", "depmod"},
	"xtables-nft-multi": {
		"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
		"iptables-nft", "iptables-nft-save", "iptables-nft-restore", "ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore",
	},
	"xtables-legacy-multi": {
		"iptables-legacy", "iptables-legacy-save", "iptables-legacy-restore",
		"ip6tables-legacy", "ip6tables-legacy-save", "ip6tables-legacy-restore",
	},
	"busybox": strings.Fields(`awk basename cat chmod chown cp cut date dd df dirname dmesg echo env expr false find free
		grep gzip head hostname id kill ln logger ls mkdir mknod mktemp mount mv nc od pidof ping ping6 pkill pgrep ps
		pwd readlink realpath rm rmdir sed seq sleep sort stat sync tail tee test timeout touch tr true tty umount uname
		uniq vi wc which whoami xargs yes`),
	"bash": {"sh"},
}

// modules are what a container's host has loaded, or what it loads when it is
// first asked for: the guest's own requests find what is not named here.
var modules = []string{"virtio_pci", "virtio_console"}

// makeRoot writes the root of a guest that runs a plan, and returns the programs
// that it lacks.
func makeRoot(to string, from initramfs.Programs, kernel *debian.Kernel, made built, p plan.Plan) (missing []string, err error) {
	root := initramfs.New()
	for _, name := range append(necessary, optional...) {
		err := from.Add(root, name)
		if errors.Is(err, initramfs.ErrMissing) {
			missing = append(missing, name)
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range necessary {
		if !root.Has("usr/bin/"+name) && !root.Has("usr/sbin/"+name) {
			return nil, fmt.Errorf("making the guest's root: %s has no program %s", from, name)
		}
	}
	linkAlternatives(root)
	if err := from.AddPlugins(root, "xtables"); err != nil {
		return nil, err
	}
	root.Text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
	root.Text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
	root.Text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
	for _, name := range []string{"protocols", "services", "nsswitch.conf"} {
		if err := root.File("etc/"+name, filepath.Join("/etc", name)); err != nil {
			continue // nft then knows fewer names
		}
	}
	if kernel.Modules != "" {
		if err := root.AddModules(kernel.Modules); err != nil {
			return nil, err
		}
	}
	if err := addTests(root, made, p); err != nil {
		return nil, err
	}
	return missing, root.Write(to)
}

// linkAlternatives makes the names that are not there as programs of their own.
// The kernel asks for modules by /sbin/modprobe, and scripts for a shell by /bin/sh.
func linkAlternatives(root *initramfs.Root) {
	for program, names := range alternatives {
		target, directory := "/usr/sbin/"+program, "/usr/sbin/"
		if !root.Has(target) {
			target = "/usr/bin/" + program
		}
		if program == "bash" || program == "busybox" {
			directory = "/usr/bin/"
		}
		for _, name := range names {
			if root.Has(target) && !root.Has("usr/sbin/"+name) && !root.Has("usr/bin/"+name) {
				root.Link(directory+name, target)
			}
		}
	}
}

// work is where the guest has a checkout's parts.
const work = "/work"

// addTests copies what of ours runs.
func addTests(root *initramfs.Root, made built, p plan.Plan) error {
	if err := root.File("init", made.guest()); err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	root.Text(plan.Path, string(text))
	if err := root.Tree(work+"/bin", made.programs()); err != nil {
		return err
	}
	if err := root.Tree(work+"/reference", made.reference()); err != nil {
		return err
	}
	for _, run := range p.Run {
		if err := root.File(run.Binary, made.test(run.Package)); err != nil {
			return err
		}
		root.Directory(run.Directory)
		data, err := filepath.Abs(filepath.Join(run.Package, "testdata"))
		if err != nil {
			return err
		}
		if err := root.Tree(run.Directory+"/testdata", data); err != nil && !errors.Is(err, errNotExist) {
			return err
		}
	}
	return nil
}

// parallel is how many of a suite's tests run at the same time, whatever it wants
// itself: dozens would make each other wait beyond flatnet's own deadlines.
const parallel = "4"

// planOf is what a guest does for suites.
func planOf(port string, suites []suite.Suite, full bool, tests string) plan.Plan {
	p := plan.Plan{Port: port, Modules: modules}
	for _, s := range suites {
		limit := s.Limit
		if limit == 0 {
			limit = suite.DefaultLimit
		}
		if full {
			limit = suite.FullLimit
		}
		run := plan.Run{
			Suite: s.Name, Package: s.Package(), Directory: path.Join(work, s.Package()), Limit: limit,
			Binary: path.Join(work, s.Package(), path.Base(s.Package())+".test"), // as go test names it
			Variables: []string{
				"FLATNET_BINARIES=" + work + "/bin", "FLATNET_REFERENCE=" + work + "/reference", "FLATNET_PACE=10",
			},
			Arguments: []string{"-test.v=test2json", "-test.timeout=" + limit.Round(time.Second).String(), "-test.parallel=" + parallel},
		}
		if device := s.Device(); device != "" {
			run.Variables = append(run.Variables, poddevice.Variable+"="+device)
		}
		if s.Short && !full {
			run.Arguments = append(run.Arguments, "-test.short")
		}
		switch {
		case tests != "":
			run.Arguments = append(run.Arguments, "-test.run="+tests)
		case s.Run != "" && !full:
			run.Arguments = append(run.Arguments, "-test.run="+s.Run)
		}
		if s.Skip != "" && !full {
			run.Arguments = append(run.Arguments, "-test.skip="+s.Skip)
		}
		p.Run = append(p.Run, run)
	}
	return p
}
