package ipamplugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/flatnet-cni/flatnet/pkg/cni"
)

// network is a configuration and its directory.
type network struct {
	t         *testing.T
	directory string
	keys      map[string]any // of the section ipam
	others    map[string]any // beside it
	version   string
}

func newNetwork(t *testing.T, keys string) *network {
	t.Helper()
	n := &network{t: t, directory: t.TempDir(), others: map[string]any{}, version: "1.1.0"}
	if err := json.Unmarshal([]byte(keys), &n.keys); err != nil {
		t.Fatal(err)
	}
	n.keys["type"], n.keys["dataDir"] = "flatnet-ipam", n.directory
	return n
}

// run executes a verb and returns what was printed.
func (n *network) run(verb, container, args string) ([]byte, error) {
	n.t.Helper()
	config := map[string]any{"cniVersion": n.version, "name": "mynet", "type": "bridge", "ipam": n.keys}
	for k, v := range n.others {
		config[k] = v
	}
	raw, err := json.Marshal(config)
	if err != nil {
		n.t.Fatal(err)
	}
	environment := map[string]string{
		"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": "/some/where", "CNI_IFNAME": "eth0", "CNI_ARGS": args,
	}
	var stdout bytes.Buffer
	p := cni.Process{Getenv: func(k string) string { return environment[k] }, Stdin: bytes.NewReader(raw), Stdout: &stdout, Stderr: &bytes.Buffer{}}
	if p.Run(Plugin{}) != 0 {
		var e types.Error
		if err := json.Unmarshal(stdout.Bytes(), &e); err != nil {
			n.t.Fatalf("%s printed %q: %v", verb, &stdout, err)
		}
		return nil, &e
	}
	return stdout.Bytes(), nil
}

// add returns "address gateway" for each address of the result.
func (n *network) add(container, args string) []string {
	n.t.Helper()
	raw, err := n.run("ADD", container, args)
	if err != nil {
		n.t.Fatalf("ADD %s: %v", container, err)
	}
	var result current.Result
	if err := json.Unmarshal(raw, &result); err != nil {
		n.t.Fatal(err)
	}
	if len(result.Interfaces) != 0 {
		n.t.Errorf("an IPAM plugin's result has interfaces: %s", raw)
	}
	var all []string
	for _, ip := range result.IPs {
		if ip.Interface != nil {
			n.t.Errorf("an IPAM plugin's address has an interface: %s", raw)
		}
		all = append(all, strings.TrimSpace(ip.Address.String()+" "+text(ip.Gateway)))
	}
	return all
}

func text(gateway []byte) string {
	if a, ok := netip.AddrFromSlice(gateway); ok {
		return a.Unmap().String()
	}
	return ""
}

func (n *network) must(verb, container string) {
	n.t.Helper()
	if out, err := n.run(verb, container, ""); err != nil || len(out) != 0 {
		n.t.Errorf("%s %s: %v, printed %q", verb, container, err, out)
	}
}

// records returns the reserved addresses.
func (n *network) records() []string {
	var all []string
	_ = filepath.WalkDir(filepath.Join(n.directory, "mynet"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if _, err := netip.ParseAddr(entry.Name()); err == nil {
				all = append(all, entry.Name())
			}
		}
		return nil
	})
	slices.Sort(all)
	return all
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// What users of host-local rely on: addresses, gateways, files.
func TestParityWithHostLocal(t *testing.T) {
	n := newNetwork(t, `{"ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.2.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.168.0.0/16", "gw": "1.1.1.1"}]}`)
	equal(t, "first pod", n.add("dummy", ""), []string{"10.1.2.2/24 10.1.2.1", "2001:db8:1::2/64 2001:db8:1::1"})
	for file, want := range map[string]string{
		"10.1.2.2": "dummy\r\neth0", "2001:db8:1::2": "dummy\r\neth0",
		"last_reserved_ip.0": "10.1.2.2", "last_reserved_ip.1": "2001:db8:1::2",
	} {
		raw, err := os.ReadFile(filepath.Join(n.directory, "mynet", file))
		if err != nil || string(raw) != want {
			t.Errorf("%s holds %q, %v; want %q", file, raw, err, want)
		}
	}
	raw, err := n.run("ADD", "other", "")
	if err != nil || !strings.Contains(string(raw), `"dst": "192.168.0.0/16"`) || !strings.Contains(string(raw), `"gw": "1.1.1.1"`) {
		t.Errorf("routes are not echoed: %s, %v", raw, err)
	}
	if _, err := n.run("ADD", "dummy", ""); err == nil || !strings.Contains(err.Error(), "duplicate allocation is not allowed") {
		t.Errorf("second ADD: %v", err)
	}
	equal(t, "records", n.records(), []string{"10.1.2.2", "10.1.2.3", "2001:db8:1::2", "2001:db8:1::3"})
	n.must("CHECK", "dummy")
	n.must("DEL", "dummy")
	n.must("DEL", "dummy")
	n.must("DEL", "never-seen")
	if _, err := n.run("CHECK", "dummy", ""); err == nil || !strings.Contains(err.Error(), "dummy") {
		t.Errorf("CHECK after DEL: %v", err)
	}
	equal(t, "records", n.records(), []string{"10.1.2.3", "2001:db8:1::3"})
}

func TestRequestedAddresses(t *testing.T) {
	for _, c := range []struct {
		name, args string
		others     map[string]any
		want       []string
		err        string
	}{
		{name: "CNI_ARGS", args: "IP=10.1.2.88", want: []string{"10.1.2.88/24 10.1.2.1", "2001:db8:1::2/64 2001:db8:1::1"}},
		{name: "args", others: map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{"10.1.2.88", "2001:db8:1::999"}}}},
			want: []string{"10.1.2.88/24 10.1.2.1", "2001:db8:1::999/64 2001:db8:1::1"}},
		{name: "capability", others: map[string]any{"runtimeConfig": map[string]any{"ips": []string{"2001:db8:1::999/64"}}},
			want: []string{"10.1.2.2/24 10.1.2.1", "2001:db8:1::999/64 2001:db8:1::1"}},
		{name: "capability ipRanges", others: map[string]any{"runtimeConfig": map[string]any{"ipRanges": [][]map[string]string{{{"subnet": "10.9.0.0/30"}}}}},
			want: []string{"10.9.0.2/30 10.9.0.1", "10.1.2.2/24 10.1.2.1", "2001:db8:1::2/64 2001:db8:1::1"}},
		{name: "gateway", args: "IP=10.1.2.1", err: "10.1.2.1"},
		{name: "outside", args: "IP=10.1.3.1", err: "10.1.3.1"},
		{name: "two of one set", others: map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{"10.1.2.8", "10.1.2.9"}}}}, err: "10.1.2.9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, `{"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]]}`)
			n.others = c.others
			if c.err == "" {
				equal(t, "addresses", n.add("a", c.args), c.want)
				return
			}
			if _, err := n.run("ADD", "a", c.args); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v does not name %s", err, c.err)
			}
			equal(t, "records", n.records(), []string{})
		})
	}
}

func TestSmallSubnets(t *testing.T) {
	for subnet, want := range map[string][]string{
		"10.0.0.4/31": {"10.0.0.4/31", "10.0.0.5/31"}, "10.0.0.4/32": {"10.0.0.4/32"},
		"fd00::4/127": {"fd00::4/127", "fd00::5/127"}, "fd00::4/128": {"fd00::4/128"},
	} {
		n := newNetwork(t, `{"subnet": "`+subnet+`"}`)
		for i, address := range want {
			equal(t, subnet, n.add(fmt.Sprint(i), ""), []string{address})
		}
		_, err := n.run("ADD", "more", "")
		var e *types.Error
		if err == nil {
			t.Errorf("%s: more addresses than there are", subnet)
		} else if e, _ = err.(*types.Error); e.Code != cni.CodeExhausted {
			t.Errorf("%s: %v", subnet, err)
		}
		if _, err := n.run("STATUS", "", ""); err == nil || err.(*types.Error).Code != types.ErrPluginNotAvailable {
			t.Errorf("%s: STATUS of a full range: %v", subnet, err)
		}
	}
}

func TestGarbageCollection(t *testing.T) {
	n := newNetwork(t, `{"subnet": "10.1.2.0/24"}`)
	for _, container := range []string{"a", "b", "c"} {
		n.add(container, "")
	}
	n.must("GC", "")
	equal(t, "without a list", len(n.records()), 3)
	n.others["cni.dev/valid-attachments"] = []map[string]string{{"containerID": "b", "ifname": "eth0"}}
	n.must("GC", "")
	equal(t, "with b", n.records(), []string{"10.1.2.3"})
	n.others["cni.dev/valid-attachments"] = []any{}
	n.must("GC", "")
	equal(t, "with nothing", len(n.records()), 0)
}

// The result has the shape of the version that was asked for.
func TestVersions(t *testing.T) {
	for v, want := range map[string]string{
		"0.1.0": `"ip4"`, "0.2.0": `"ip4"`, "0.3.1": `"version": "4"`, "0.4.0": `"version": "4"`, "1.0.0": `"ips"`, "1.1.0": `"ips"`,
	} {
		n := newNetwork(t, `{"subnet": "10.1.2.0/24"}`)
		n.version = v
		raw, err := n.run("ADD", "a", "")
		if err != nil || !strings.Contains(string(raw), want) || !strings.Contains(string(raw), "10.1.2.2/24") {
			t.Errorf("version %s: %s, %v", v, raw, err)
		}
	}
}

func TestResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	content := "# comment\n; another\nnameserver 192.0.2.1\nnameserver 192.0.2.2\ndomain example.com\nsearch a b\noptions x:1 y\nsortlist 1\nnameserver\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNetwork(t, `{"subnet": "10.1.2.0/24", "resolvConf": "`+file+`"}`)
	raw, err := n.run("ADD", "a", "")
	if err != nil {
		t.Fatal(err)
	}
	var result current.Result
	if err := json.Unmarshal(raw, &result); err != nil {
		t.Fatal(err)
	}
	equal(t, "dns", result.DNS, types.DNS{Nameservers: []string{"192.0.2.1", "192.0.2.2"}, Domain: "example.com", Search: []string{"a", "b"}, Options: []string{"x:1", "y"}})
	n = newNetwork(t, `{"subnet": "10.1.2.0/24", "resolvConf": "/no/such/file"}`)
	if _, err := n.run("ADD", "a", ""); err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("missing file: %v", err)
	}
	equal(t, "records", n.records(), []string{})
}
