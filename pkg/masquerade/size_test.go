package masquerade

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// The elements of a large cluster take many messages in one transaction.
func TestLargeCluster(t *testing.T) {
	inNode(t, func(*netlab.Node) {
		k := &Keeper{Log: failing(t)}
		c := nodes(5000)
		if _, err := k.Sync(Plan(c)); errors.Is(err, unix.EMSGSIZE) {
			t.Skipf("one transaction of 5,000 nodes needs root, or a larger net.core.wmem_max: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		expect(t, Plan(c))
		// Half of them leave, and come back.
		half := c
		half.Pods, half.Nodes = c.Pods[:5000], c.Nodes[:5000]
		for _, c := range []Config{half, c} {
			apply(t, k, Plan(c), 10000)
			expect(t, Plan(c))
		}
	})
}
