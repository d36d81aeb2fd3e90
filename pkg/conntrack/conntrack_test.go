package conntrack

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// flows are tracked from the start: from client to service, whom server answers.
var flows = []struct {
	protocol                uint8
	client, service, server string
}{
	{unix.IPPROTO_UDP, "10.0.0.1:1000", "10.0.0.2:53", "10.0.0.2:53"},
	{unix.IPPROTO_UDP, "10.0.0.3:1000", "10.96.0.1:53", "10.0.0.1:5353"},
	{unix.IPPROTO_UDP, "10.0.0.3:1001", "10.0.0.4:53", "10.0.0.4:53"},
	{unix.IPPROTO_TCP, "10.0.0.3:1000", "10.0.0.1:80", "10.0.0.1:80"},
	{unix.IPPROTO_UDP, "[fd00::1]:1000", "[fd00::2]:53", "[fd00::2]:53"},
	{unix.IPPROTO_UDP, "[fd00::3]:1000", "[fd00:96::1]:53", "[fd00::1]:5353"},
	{unix.IPPROTO_UDP, "[fd00::3]:1001", "[fd00::4]:53", "[fd00::4]:53"},
}

// tracked calls f in a namespace in which the flows are.
func tracked(t *testing.T, f func() error) {
	t.Helper()
	if err := netlab.Start(t).Namespace("node").Do(func() error {
		for _, flow := range flows {
			client, service, server := netip.MustParseAddrPort(flow.client), netip.MustParseAddrPort(flow.service), netip.MustParseAddrPort(flow.server)
			tuple := func(from, to netip.AddrPort) netlink.IPTuple {
				return netlink.IPTuple{
					SrcIP: from.Addr().AsSlice(), DstIP: to.Addr().AsSlice(), SrcPort: from.Port(), DstPort: to.Port(), Protocol: flow.protocol,
				}
			}
			entry := &netlink.ConntrackFlow{
				FamilyType: uint8(familyOf(client.Addr())), TimeOut: 600,
				Forward: tuple(client, service), Reverse: tuple(server, client),
			}
			if flow.protocol == unix.IPPROTO_TCP {
				entry.ProtoInfo = &netlink.ProtoInfoTCP{State: 3}
			}
			if err := netlink.ConntrackCreate(netlink.ConntrackTable, netlink.InetFamily(entry.FamilyType), entry); err != nil {
				return fmt.Errorf("creating %v: %w", flow, err)
			}
		}
		return f()
	}); err != nil {
		t.Fatal(err)
	}
}

// left returns what is tracked, as "CLIENT SERVICE SERVER".
func left(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		if _, err := Forget(protocol, func(f Flow) bool {
			all = append(all, fmt.Sprint(f.Source, " ", f.Destination, " ", f.Answering))
			return false
		}); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(all)
	return all
}

// remaining are the flows of these positions, as left returns them.
func remaining(positions ...int) []string {
	var all []string
	for _, i := range positions {
		all = append(all, flows[i].client+" "+flows[i].service+" "+flows[i].server)
	}
	slices.Sort(all)
	return all
}

func TestForget(t *testing.T) {
	tracked(t, func() error {
		if entries, _, err := Tracked(); err != nil || entries != len(flows) {
			t.Errorf("%d entries and error %v, want %d", entries, err, len(flows))
		}
		n, err := Forget(unix.IPPROTO_UDP, func(f Flow) bool { return f.Destination.Port() == 53 && f.Answering != f.Destination })
		if got, want := left(t), remaining(0, 2, 3, 4, 6); n != 2 || !slices.Equal(got, want) {
			t.Errorf("%d forgotten, and %q left; want %q", n, got, want)
		}
		return err
	})
}

// Whoever opened a flow, and whoever answers it, is forgotten with it: by both ways
// that there are.
func TestForgetAddresses(t *testing.T) {
	addresses := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	for name, forget := range map[string]func() error{
		"as the kernel can": func() error { return ForgetAddresses(addresses) },
		"by reading": func() error {
			return tracking(func(t tracker) error {
				for _, a := range addresses {
					if err := t.forgetByReading(a); err != nil {
						return err
					}
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			tracked(t, func() error {
				err := forget()
				if got, want := left(t), remaining(2, 6); !slices.Equal(got, want) {
					t.Errorf("%q left, want %q", got, want)
				}
				return err
			})
		})
	}
}
