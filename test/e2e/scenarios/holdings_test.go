package scenarios

import (
	"net/netip"
	"testing"
)

const held = `file flatnetd.lock
file attachments/13d7f091256dce5aa9e1b331665bd90e
file attachments/20ae7e619c2a3d6948d5088cf87327ad
file ipam/flatnet/10.244.1.2
file ipam/flatnet/fd00:244:0:1::2
file ipam/flatnet/10.244.1.3
file ipam/flatnet/fd00:244:0:1::3
file ipam/flatnet/last_reserved_ip.0
file ipam/flatnet/.flatnet/owners/59c96e0c3b49e3e2aab2a1f2c839a1e0
attachment {"network":"flatnet","wire":{"addresses":["10.244.1.2","fd00:244:0:1::2"],"gateways":["10.244.1.1"]}}
attachment {"network":"flatnet","wire":{"addresses":["10.244.1.3","fd00:244:0:1::3"],"gateways":["10.244.1.1"]}}
interface 4: veth8acb974039a@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP mode DEFAULT group 70 qlen 1000
interface 5: veth88da18f1dfb@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP mode DEFAULT group 70 qlen 1000
route 10.244.0.0/24 via 172.30.0.1 dev eth0 src 172.30.0.2
route unreachable 10.244.1.0/24 metric 1073741824
route 10.244.1.2 dev veth8acb974039a scope link
route 10.244.1.3 dev veth88da18f1dfb scope link
route fd00:244:0:1::2 dev veth8acb974039a metric 1024 pref medium
route fd00:244:0:1::3 dev veth88da18f1dfb metric 1024 pref medium
route fe80::6c06:58ff:fec7:7ba9 dev veth88da18f1dfb metric 1024 pref medium
`

func aPod(name string, addresses ...string) pod {
	p := pod{Namespace: "shop", Name: name}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
	}
	return p
}

func TestHoldingsAgainstPods(t *testing.T) {
	one, two := aPod("one", "10.244.1.2", "fd00:244:0:1::2"), aPod("two", "10.244.1.3", "fd00:244:0:1::3")
	onHost, ended, ending, bare := aPod("host", "172.30.0.2"), aPod("ended", "10.244.1.9"), two, two
	onHost.OnHost, ended.Ended, ending.Ending, bare.Addresses = true, true, true, nil
	for _, c := range []struct {
		name, more string
		pods       []pod
		want       string
	}{
		{"as it should be", "", []pod{one, two, onHost, ended}, ""},
		{"a pod has not ended", "", []pod{one, ending}, "pod shop/two has not ended"},
		{"nothing was freed", "", []pod{one}, `2 interfaces of 1 pods: veth8acb974039a veth88da18f1dfb
attachment of 10.244.1.3, which no pod has, or one too many
attachment of fd00:244:0:1::3, which no pod has, or one too many
reservation of 10.244.1.3, which no pod has, or one too many
reservation of fd00:244:0:1::3, which no pod has, or one too many
route of 10.244.1.3, which no pod has, or one too many
route of fd00:244:0:1::3, which no pod has, or one too many`},
		{"one leaked", "file ipam/flatnet/10.244.1.7\n", []pod{one, two}, "reservation of 10.244.1.7, which no pod has, or one too many"},
		{"two networks", "file ipam/other/10.244.1.3\n", []pod{one, two}, "reservation of 10.244.1.3, which no pod has, or one too many"},
		{"a pod without all this", "", []pod{one, two, aPod("three", "10.244.1.4")}, `2 interfaces of 3 pods: veth8acb974039a veth88da18f1dfb
no attachment of 10.244.1.4, which pod shop/three has
no reservation of 10.244.1.4, which pod shop/three has
no route of 10.244.1.4, which pod shop/three has`},
		{"the API knows no address yet", "", []pod{one, two, bare}, "2 interfaces of 3 pods: veth8acb974039a veth88da18f1dfb\npod shop/two has no address"},
		{"one address twice", "", []pod{one, two, aPod("copy", "10.244.1.2")}, `2 interfaces of 3 pods: veth8acb974039a veth88da18f1dfb
pods shop/one and shop/copy have one address, 10.244.1.2`},
	} {
		h, err := parseHoldings(held + c.more)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := h.compare(c.pods); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", c.name, got, c.want)
		}
	}
}

func TestWhatIsLeft(t *testing.T) {
	before, err := parseHoldings(held)
	if err != nil {
		t.Fatal(err)
	}
	if err := before.since(before); err != nil {
		t.Errorf("nothing has changed: %v", err)
	}
	now, err := parseHoldings(held + `file ipam/flatnet/.flatnet/owners/07bc76d56910478bf830e492628284d3
file ipam/flatnet/10.244.1.9
interface 9: veth0@if2: <UP>
route 10.244.1.9 dev veth0 scope link
attachment {"wire":{"addresses":["10.244.1.9"]}}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := `reservation 10.244.1.9 is left
attachment 10.244.1.9 is left
route 10.244.1.9 is left
interface veth0 is left
file ipam/flatnet/.flatnet/owners/07bc76d56910478bf830e492628284d3 is left
file ipam/flatnet/10.244.1.9 is left`
	if err := now.since(before); err == nil || err.Error() != want {
		t.Errorf("%v\nwant:\n%s", err, want)
	}
	if err := before.since(now); err != nil {
		t.Errorf("less than before: %v", err)
	}
}

func TestHoldingsThatCannotBeRead(t *testing.T) {
	for _, text := range []string{"attachment {\n", "attachment\n", "interface\n", "Error: x\n"} {
		if h, err := parseHoldings(text); err == nil {
			t.Errorf("%q: %+v", text, h)
		}
	}
}
