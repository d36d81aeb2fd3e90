package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// IPVS is in use where it has a service, or where kube-proxy has its interface.
func TestIPVSIsFound(t *testing.T) {
	const header = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
	node := netlab.Start(t).Node("node")
	write := func(path, text string) string {
		directory := t.TempDir()
		path = filepath.Join(directory, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return directory
	}
	find := func(procNet, sysctls string) (v ipvs) {
		if err := node.Do(func() error { v = findIPVS(procNet, sysctls); return nil }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	none, off, on := t.TempDir(), write("net/ipv4/vs/conntrack", "0\n"), write("net/ipv4/vs/conntrack", "1\n")
	for name, c := range map[string]struct {
		procNet, sysctls string
		want             ipvs
	}{
		"no module":     {none, none, ipvs{}},
		"module only":   {write("ip_vs", header), on, ipvs{tracks: true}},
		"service":       {write("ip_vs", header+"TCP  0A60000A:0035 rr\n  -> 0AF40103:0035      Masq    1      0          0\n"), on, ipvs{inUse: true, tracks: true}},
		"IPv6, no ct":   {write("ip_vs", header+"UDP  [fd00:0096:0000:0000:0000:0000:0000:000a]:0035 rr\n"), off, ipvs{inUse: true}},
		"by mark":       {write("ip_vs", header+"FWM  00000001 rr\n"), none, ipvs{inUse: true}},
		"nothing there": {filepath.Join(none, "missing"), off, ipvs{}},
	} {
		if got := find(c.procNet, c.sysctls); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if output, err := node.Output("ip", "link", "add", "kube-ipvs0", "type", "veth"); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if got, want := find(none, on), (ipvs{inUse: true, tracks: true}); got != want {
		t.Errorf("with kube-proxy's interface: %+v, want %+v", got, want)
	}
}

func TestWhatIsNotInForce(t *testing.T) {
	fib, log := map[string]string{besideIPVS: "no fib"}, map[string]string{logging: "no log"}
	for _, c := range []struct {
		refused map[string]string
		v       ipvs
		want    string
	}{
		{nil, ipvs{}, ""},
		{fib, ipvs{tracks: true}, ""},
		{nil, ipvs{inUse: true, tracks: true}, ""},
		{fib, ipvs{inUse: true, tracks: true}, "policies and IPVS: no policy of this node has a say"},
		{nil, ipvs{inUse: true}, "policies and IPVS: answers that come through Services"},
		{fib, ipvs{inUse: true}, "policies and IPVS: no policy of this node has a say; policies and IPVS: answers that come through Services"},
		{log, ipvs{}, "--log-drops: what policies refuse is not logged: no log"},
	} {
		got := lacks(c.refused, c.v)
		wants := strings.Split(c.want, "; ")
		if c.want == "" {
			wants = nil
		}
		ok := len(got) == len(wants)
		for i := range min(len(got), len(wants)) {
			ok = ok && strings.HasPrefix(got[i].Object+": "+got[i].Reason, wants[i]) && got[i].Advice != ""
		}
		if !ok {
			t.Errorf("%v, %+v: %s, want %s", c.refused, c.v, fmt.Sprint(got), c.want)
		}
	}
}

// The summary says what is not in force, as of the last comparison.
func TestSummaryHasWhatIsNotInForce(t *testing.T) {
	c, node, repaired := explaining(t)
	if got := c.Summary().Lacks; len(got) > 0 {
		t.Fatalf("without IPVS: %v", got)
	}
	for _, command := range []string{"ip link add kube-ipvs0 type veth", "nft delete table inet " + TableName} {
		words := strings.Fields(command)
		if output, err := node.Output(words[0], words[1:]...); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	}
	c.touched.Give()
	select {
	case <-repaired:
	case <-time.After(10 * time.Second):
		t.Fatal("it is not repaired")
	}
	if got := fmt.Sprint(c.Summary().Lacks); !strings.Contains(got, "net.ipv4.vs.conntrack") {
		t.Errorf("with IPVS and no sysctl of it: %s", got)
	}
}
