package measure

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/page"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/poddevice"
)

// TestPodDevices has two pairs of pods on one node, by veth and by netkit, talk in turn: the
// median of netkit's elapsed time, divided by veth's, with and without the fast path.
func TestPodDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("with -test.short nothing is measured")
	}
	if missing := poddevice.Missing(); missing != "" {
		t.Skip(missing)
	}
	for _, datapath := range []string{"kernel", "ebpf"} {
		t.Run(datapath, func(t *testing.T) {
			c := cluster.Start(t)
			c.OneSegment(cluster.Dual, 1)
			n := c.Nodes[0]
			lines := map[string]*line{}
			for i, device := range []string{poddevice.Veth, poddevice.Netkit} {
				flags := []string{"--datapath", datapath, "--pod-device", device}
				if i == 0 {
					c.Start(flags...)
				} else {
					n.Restart(flags...)
				}
				lines[device] = connect(t, n.Pod(device+"-from"), n.Pod(device+"-to"))
			}
			for device, l := range lines {
				c.Eventually(device+" on the path "+datapath, func() error {
					before := n.Status().FastPath
					l.say(t, 100, 10)
					const most = 150 // of 200 packets, some of which the stack may still get
					hits := n.Status().FastPath.Hits - before.Hits
					if (before.Datapath != datapath) || datapath == "ebpf" && hits < most {
						return fmt.Errorf("the path is %s, and %d packets took the fast one", before.Datapath, hits)
					}
					return nil
				})
			}
			for _, m := range []struct {
				name        string
				times, size int
			}{{"round trip", 200, 10}, {"stream", 10, 300_000}} {
				took := map[string][]time.Duration{}
				for range rounds {
					for device, l := range lines {
						took[device] = append(took[device], l.say(t, m.times, m.size))
					}
				}
				veth, netkit := page.Quantile(took[poddevice.Veth], 0.5), page.Quantile(took[poddevice.Netkit], 0.5)
				t.Logf("%s: veth %s, netkit %s", m.name, veth, netkit)
				t.Logf("figure: netkit / veth, %s, path %s, elapsed time: %.2f", m.name, datapath, netkit.Seconds()/veth.Seconds())
			}
		})
	}
}

// line is a connection on which every line is answered by itself.
type line struct {
	net.Conn
	answers *bufio.Reader
}

func connect(t *testing.T, from, to *cluster.Pod) *line {
	t.Helper()
	const port = 80
	to.ServeLines(t, port)
	l := &line{}
	err := from.Do(func() (err error) {
		l.Conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(to.Address(false), port).String(), pace.Far())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.answers = bufio.NewReaderSize(l, 1<<20)
	return l
}

// say says something some times, waits for each answer, and returns how long that took.
func (l *line) say(t *testing.T, times, size int) time.Duration {
	t.Helper()
	text := strings.Repeat("x", size) + "\n"
	begin := time.Now()
	for range times {
		if err := l.SetDeadline(time.Now().Add(pace.Far())); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if answer, err := l.answers.ReadString('\n'); err != nil || answer != text {
			t.Fatalf("%d bytes were answered with %d, %v", len(text), len(answer), err)
		}
	}
	return time.Since(begin)
}
