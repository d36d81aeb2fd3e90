package main

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/kube"
	"github.com/flatnet-cni/flatnet/test/e2e/lab"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

// contender is a configuration of the node's network.
type contender struct {
	name string
	// network is the one that its configuration names.
	network string
	// conflist is the configuration, "" for that which the node has.
	conflist string
}

// referenceFile sorts before flatnet's: containerd takes the first, at once.
var referenceFile = path.Join(kube.ConfDir, "00-reference.conflist")

// contenders are flatnet as it is installed, and the reference plugins with the
// families of the cluster, and addresses that are nobody's.
func contenders(c plan.Cluster) []contender {
	var ranges []netip.Prefix
	for _, network := range c.Pods {
		text := "10.245.0.0/24"
		if network.Addr().Is6() {
			text = "fd00:245::/64"
		}
		ranges = append(ranges, netip.MustParsePrefix(text))
	}
	return []contender{
		{name: "flatnet", network: "flatnet"},
		{name: "ptp + host-local", network: lab.ReferenceNetwork, conflist: lab.ReferenceConflist(ranges)},
	}
}

// use makes the contender the one that attaches pods. No pod of another may be
// left: the runtime detaches with the configuration that it has now.
func (b *bench) use(ctx context.Context, c contender) error {
	script := "rm -f " + referenceFile
	if c.conflist != "" {
		if err := b.node.lab.AddPortmap(b.node.name); err != nil {
			return err
		}
		// The rename is atomic, so that containerd never reads half of it.
		script = "cat > /tmp/reference && mv /tmp/reference " + referenceFile
	}
	cmd, err := b.node.lab.Command(b.node.name, "sh", "-c", script)
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(c.conflist)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("configuring %s on %s: %w: %s", c.name, b.node.name, err, output)
	}
	return until(ctx, 30*time.Second, c.name+" to attach pods of "+b.node.name, func() error {
		return b.probe(ctx, c)
	})
}

// probe fails unless a pod that is started now is attached by the contender.
func (b *bench) probe(ctx context.Context, c contender) error {
	before, err := b.node.attachments()
	if err != nil {
		return err
	}
	if _, err := b.start(ctx, names("probe", 1)); err != nil {
		return err
	}
	now, err := b.node.attachments()
	if err != nil {
		return err
	}
	if _, err := b.end("probe"); err != nil {
		return err
	}
	return onlyBy(c.network, 1, before, now)
}

// onlyBy fails unless there are so many attachments more of the network, and no
// others.
func onlyBy(network string, count int, before, now map[string]int) error {
	for name := range now {
		want := 0
		if name == network {
			want = count
		}
		if got := now[name] - before[name]; got != want {
			return fmt.Errorf("%d pods were attached by network %s: want %d", got, name, want)
		}
	}
	if now[network]-before[network] != count {
		return fmt.Errorf("no pod was attached by network %s: want %d", network, count)
	}
	return nil
}
