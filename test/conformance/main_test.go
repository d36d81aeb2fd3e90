package conformance

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/reference"
)

// pluginVariable names the plugin to test; the default is bin/flatnet.
const pluginVariable = "FLATNET_CONFORMANCE_PLUGIN"

// plugin is a binary under test.
type plugin struct {
	path string
	// search is CNI_PATH: where the plugin, its IPAM plugins and the plugins
	// that are chained to it are found.
	search []string
	// misfortune, where it is set, tells a failure that is due to how busy the
	// machine is, and to the plugin's own impatience: the item is judged again.
	misfortune func(seen string) bool
}

// name is what the configuration's "type" is.
func (p plugin) name() string { return filepath.Base(p.path) }

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == recorderName {
		recorderMain()
	}
	// Where nft and iptables are, which is not in everybody's PATH.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	// Builds may need the network, so they come before the namespaces.
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
	// Items spend most of their time waiting for the kernel.
	flag.Set("test.parallel", "24")
	netlab.Main(m)
}

// build makes what the tests execute, as far as it is not there yet.
func build() error {
	if _, err := reference.Plugins(); err != nil {
		return err
	}
	if os.Getenv(pluginVariable) != "" {
		return nil
	}
	_, err := binaries.Build()
	return err
}

func TestPlugin(t *testing.T) {
	path := os.Getenv(pluginVariable)
	if path == "" {
		directory, err := binaries.Build() // TestMain has
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(directory, "flatnet")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no plugin to test: %v", err)
	}
	suite(t, plugin{path: path, search: []string{filepath.Dir(path), reference.Build(t)}}, nil)
}
