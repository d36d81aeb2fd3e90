// Package ipam executes flatnet-ipam under other main plugins, in the place of
// host-local.
package ipam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/reference"
)

func TestMain(m *testing.M) {
	// Builds may need the network, so they come before the namespaces.
	if _, err := binaries.Build(); err != nil {
		fmt.Fprintln(os.Stderr, "ipam:", err)
		os.Exit(1)
	}
	if _, err := reference.Plugins(); err != nil {
		fmt.Fprintln(os.Stderr, "ipam:", err)
		os.Exit(1)
	}
	netlab.Main(m)
}

func TestUnderOtherMainPlugins(t *testing.T) {
	own, err := binaries.Build()
	if err != nil {
		t.Fatal(err)
	}
	others := reference.Build(t)
	for _, main := range []string{"ptp", "bridge"} {
		t.Run(main, func(t *testing.T) {
			lab := netlab.Start(t)
			node, pod := lab.Node("node"), lab.Pod("a")
			data := t.TempDir()
			config := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "net", "type": %q, "isGateway": true,
				"ipam": {"type": "flatnet-ipam", "dataDir": %q, "ranges": [[{"subnet": "10.1.2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}`, main, data)
			run := func(verb, extra string) []byte {
				t.Helper()
				var stdout bytes.Buffer
				cmd := exec.Command(filepath.Join(others, main))
				cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID=a", "CNI_NETNS="+pod.Path, "CNI_IFNAME=eth0", "CNI_PATH="+own+":"+others)
				cmd.Stdin, cmd.Stdout = strings.NewReader(config+extra+"}"), &stdout
				if err := node.Run(cmd); err != nil {
					t.Fatalf("%s: %v: %s", verb, err, &stdout)
				}
				return stdout.Bytes()
			}
			raw := run("ADD", "")
			var result struct {
				IPs []struct{ Address netip.Prefix }
			}
			if err := json.Unmarshal(raw, &result); err != nil || len(result.IPs) != 1 || result.IPs[0].Address.String() != "10.1.2.2/24" {
				t.Fatalf("ADD: %s, %v", raw, err)
			}
			at, stop, err := pod.Echo(netip.MustParseAddrPort("10.1.2.2:0"))
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			if _, _, err := node.Ask(netip.Addr{}, at, pace.Far()); err != nil {
				t.Error(err)
			}
			run("CHECK", `, "prevResult": `+string(raw))
			record := filepath.Join(data, "net", "10.1.2.2")
			if _, err := os.Stat(record); err != nil {
				t.Errorf("while attached: %v", err)
			}
			run("DEL", "")
			if _, err := os.Stat(record); err == nil {
				t.Error("DEL left the reservation")
			}
		})
	}
}
