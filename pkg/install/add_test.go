package install

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	build "github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// TestPodsOfTheInstalledConfiguration does what a runtime does: it takes the
// first configuration of the directory and executes the plugins of the other.
// Host ports are reached from everywhere, and only a pod that calls itself is
// translated.
func TestPodsOfTheInstalledConfiguration(t *testing.T) {
	lab := netlab.Start(t)
	lan := lab.Segment("lan")
	machine := lab.Node("node", lan.Port("172.30.0.1/24", "fd00:30::1/64"))
	outside := lab.Node("outside", lan.Port("172.30.0.2/24", "fd00:30::2/64"))

	n := newNode(t)
	var err error
	if n.SourceDir, err = build.Build(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Sync(t.Context(), Network{
		Name: "flatnet", MTU: 1400, StateDir: filepath.Join(n.root, "state"),
		PodCIDRs: prefixes("10.244.1.0/30", "10.244.9.0/24", "fd00:244:1::/64"),
	}); err != nil {
		t.Fatal(err)
	}

	files, err := libcni.ConfFiles(n.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) != 1 {
		t.Fatalf("the runtime finds %v, %v", files, err)
	}
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	runtime := libcni.NewCNIConfigWithCacheDir([]string{n.BinDir}, filepath.Join(n.root, "cache"), nil)
	if _, err := runtime.ValidateNetworkList(t.Context(), list); err != nil {
		t.Fatal(err)
	}

	// .1 of the /30 is reserved for the gateway and .3 the broadcast address, so
	// that the second pod gets its address out of the second podCIDR.
	pods := map[string]*netlab.Namespace{}
	addresses := map[string][]netip.Addr{}
	for _, name := range []string{"web", "db"} {
		pods[name] = lab.Pod(name)
		arguments := &libcni.RuntimeConf{ContainerID: name, NetNS: pods[name].Path, IfName: "eth0", CapabilityArgs: map[string]any{}}
		if name == "web" {
			arguments.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 8080, "containerPort": 7000, "protocol": "udp"}}
		}
		var result *current.Result
		err := machine.Do(func() error {
			raw, err := runtime.AddNetworkList(t.Context(), list, arguments)
			if err == nil {
				result, err = current.NewResultFromResult(raw)
			}
			return err
		})
		if err != nil {
			t.Fatalf("ADD %s: %v", name, err)
		}
		t.Cleanup(func() {
			if err := machine.Do(func() error { return runtime.DelNetworkList(context.Background(), list, arguments) }); err != nil {
				t.Errorf("DEL %s: %v", name, err)
			}
		})
		for _, ip := range result.IPs {
			address, _ := netip.AddrFromSlice(ip.Address.IP)
			addresses[name] = append(addresses[name], address.Unmap())
		}
		if mtu := result.Interfaces[len(result.Interfaces)-1].Mtu; mtu != 0 && mtu != 1400 {
			t.Errorf("MTU of %s is %d, want 1400", name, mtu)
		}
	}
	for name, want := range map[string]netip.Addr{"web": netip.MustParseAddr("10.244.1.2"), "db": netip.MustParseAddr("10.244.9.2")} {
		// The family of the first podCIDR first, one address of each.
		if got := addresses[name]; len(got) != 2 || got[0] != want || !got[1].Is6() {
			t.Fatalf("%s got %v, want first %s", name, got, want)
		}
	}

	for _, family := range []struct {
		index       int
		listen, via string
		outside     string
	}{
		{0, "0.0.0.0:7000", "172.30.0.1:8080", "172.30.0.2"},
		{1, "[::]:7000", "[fd00:30::1]:8080", "fd00:30::2"},
	} {
		_, stop, err := pods["web"].Echo(netip.MustParseAddrPort(family.listen))
		if err != nil {
			t.Fatal(err)
		}
		via := netip.MustParseAddrPort(family.via)
		for _, c := range []struct {
			from   string
			space  *netlab.Namespace
			seenAs netip.Addr // invalid: any but its own
		}{
			{"another machine", outside.Namespace, netip.MustParseAddr(family.outside)},
			{"another pod", pods["db"], addresses["db"][family.index]},
			{"the pod itself", pods["web"], netip.Addr{}},
		} {
			seen, _, err := c.space.Ask(netip.Addr{}, via, 5*time.Second)
			switch {
			case err != nil:
				t.Errorf("host port from %s: %v", c.from, err)
			case c.seenAs.IsValid() && seen != c.seenAs:
				t.Errorf("host port from %s: seen as %s, want %s", c.from, seen, c.seenAs)
			case !c.seenAs.IsValid() && seen == addresses["web"][family.index]:
				t.Errorf("host port from %s: seen as itself", c.from)
			}
		}
		stop()
	}
	if _, err := os.Stat(filepath.Join(n.root, "state")); err != nil {
		t.Errorf("the configured state directory is not used: %v", err)
	}
}
