package install

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	build "github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// childVariable makes the test binary run Sync in a [node]'s directories; its
// value is the number of the change before which it kills itself, 0 for none.
const childVariable = "FLATNET_TEST_INSTALL_KILL_AT"

// rootVariable is where the child's node is, sourceVariable its SourceDir.
const (
	rootVariable   = "FLATNET_TEST_INSTALL_ROOT"
	sourceVariable = "FLATNET_TEST_INSTALL_SOURCE"
)

func TestMain(m *testing.M) {
	if at, isChild := os.LookupEnv(childVariable); isChild {
		os.Exit(child(at))
	}
	// A build may need the network, so it comes before the namespaces.
	if _, err := build.Build(); err != nil {
		fmt.Fprintln(os.Stderr, "install:", err)
		os.Exit(1)
	}
	netlab.Main(m)
}

func child(at string) int {
	kill, err := strconv.Atoi(at)
	if err != nil {
		panic(err)
	}
	i := installerIn(os.Getenv(rootVariable))
	i.SourceDir = os.Getenv(sourceVariable)
	calls := 0
	i.Step = func(string) error {
		if calls++; calls == kill {
			// The process has no time for anything else.
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	if _, err := i.Sync(context.Background(), network()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func installerIn(root string) *Installer {
	return &Installer{
		SourceDir: filepath.Join(root, "image"),
		BinDir:    filepath.Join(root, "opt/cni/bin"),
		ConfDir:   filepath.Join(root, "etc/cni/net.d"),
	}
}

// network is a dual-stack one.
func network() Network {
	return Network{Name: "flatnet", MTU: 1450, PodCIDRs: prefixes("10.244.1.0/24", "fd00:244:1::/64")}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// node is a machine's directories, and an installer for them.
type node struct {
	*Installer
	t    *testing.T
	root string
}

// newNode makes a node with nothing on it, and an image whose binaries are a few
// words.
func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, root: t.TempDir()}
	n.Installer = installerIn(n.root)
	n.image("image", "1")
	return n
}

// image makes a directory of binaries of a version and returns it.
func (n *node) image(name, version string) string {
	for _, binary := range binaries() {
		n.write(filepath.Join(n.root, name, binary), content(binary, version), 0o755)
	}
	return filepath.Join(n.root, name)
}

func content(binary, version string) string {
	return strings.Repeat(binary+" version "+version+"\n", 20_000)
}

func (n *node) write(path, text string, mode os.FileMode) {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		n.t.Fatal(err)
	}
}

// bin and conf are paths of files in the node's directories.
func (n *node) bin(name string) string  { return filepath.Join(n.BinDir, name) }
func (n *node) conf(name string) string { return filepath.Join(n.ConfDir, name) }

// sync runs Sync and returns what changed, below the node's root.
func (n *node) sync() string {
	n.t.Helper()
	changes, err := n.Sync(n.t.Context(), network())
	if err != nil {
		n.t.Fatal(err)
	}
	return n.below(strings.Join(changes, "\n"))
}

// below makes a text's paths relative to the node's root.
func (n *node) below(text string) string { return strings.ReplaceAll(text, n.root+"/", "") }

// list shows every file of the node's directories, one a line.
func (n *node) list() string {
	n.t.Helper()
	var lines []string
	for _, directory := range []string{n.BinDir, n.ConfDir} {
		entries, err := os.ReadDir(directory)
		if err != nil {
			continue
		}
		for _, e := range entries {
			info, err := os.Lstat(filepath.Join(directory, e.Name()))
			if err != nil {
				n.t.Fatal(err)
			}
			lines = append(lines, info.Mode().String()+" "+e.Name())
		}
	}
	return strings.Join(lines, "\n")
}

func (n *node) read(path string) string {
	n.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// findings is what Check says, a line each.
func (n *node) findings() string {
	var lines []string
	for _, f := range n.Check(network()) {
		lines = append(lines, n.below(f.String()))
	}
	return strings.Join(lines, "\n")
}

// wantText compares readable texts.
func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("%s:\n%s\n\nwant:\n%s", what, got, want)
	}
}

// conflistOf is what the network's configuration must be.
func conflistOf(t *testing.T, n Network) string {
	t.Helper()
	text, err := Conflist(n)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
