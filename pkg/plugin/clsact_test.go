package plugin

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// The place for filters is made where the configuration says so; CHECK does not miss it,
// and DEL takes it along.
func TestClsactIsMadeWhereItIsAskedFor(t *testing.T) {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	for want, config := range map[string]map[string]any{"": nil, "clsact": {"clsact": true}} {
		t.Run(fmt.Sprintf("%q", want), func(t *testing.T) {
			s.t = t
			pod := s.lab.Pod("pod" + want)
			result, err := s.run(call{verb: "ADD", container: "c" + want, netns: pod.Path, config: config})
			if err != nil {
				t.Fatal(err)
			}
			l, err := s.node.Netlink().LinkByName(result.Interfaces[0].Name)
			if err != nil {
				t.Fatal(err)
			}
			on := func(do func(*netlink.Socket) error) {
				t.Helper()
				if err := s.node.Do(func() error {
					const bytes = 64 << 10
					socket, err := netlink.Open(unix.NETLINK_ROUTE, bytes)
					if err != nil {
						return err
					}
					defer socket.Close()
					return do(socket)
				}); err != nil {
					t.Fatal(err)
				}
			}
			on(func(socket *netlink.Socket) error {
				if kind, err := kernel.IngressQueue(socket, l.Attrs().Index); err != nil || kind != want {
					return fmt.Errorf("qdisc %q, %w", kind, err)
				}
				return kernel.RemoveClsact(socket, l.Attrs().Index)
			})
			check := map[string]any{"prevResult": s.previous(result, "1.0.0"), "clsact": want != ""}
			if _, err := s.run(call{verb: "CHECK", container: "c" + want, netns: pod.Path, config: check}); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			s.mustDel("c"+want, pod.Path)
			s.checkNothingLeft("DEL")
		})
	}
}
