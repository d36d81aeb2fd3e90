package agent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// Which pods are attached, by the plugin's records.
func TestAttachedIn(t *testing.T) {
	record := func(pod, uid, address string, minute int) attachment.Record {
		return attachment.Record{Pod: pod, UID: uid, Since: time.Unix(int64(60*minute), 0), Wire: wire.Wire{Addresses: []netip.Addr{netip.MustParseAddr(address)}}}
	}
	for name, c := range map[string]struct {
		records []attachment.Record
		want    string
	}{
		"none":              {nil, "[]"},
		"for no pod":        {[]attachment.Record{record("", "", "10.0.0.1", 1)}, "[{  [10.0.0.1]}]"},
		"two interfaces":    {[]attachment.Record{record("ns/a", "1", "10.0.0.2", 1), record("ns/a", "1", "10.0.0.1", 2)}, "[{ns/a 1 [10.0.0.1 10.0.0.2]}]"},
		"one after another": {[]attachment.Record{record("ns/a", "1", "10.0.0.1", 1), record("ns/a", "2", "10.0.0.2", 2)}, "[{ns/a 2 [10.0.0.2]} {ns/a (former) 1 [10.0.0.1]}]"},
		"the other way":     {[]attachment.Record{record("ns/a", "2", "10.0.0.2", 2), record("ns/a", "1", "10.0.0.1", 1)}, "[{ns/a 2 [10.0.0.2]} {ns/a (former) 1 [10.0.0.1]}]"},
	} {
		if got := fmt.Sprint(attachedIn(c.records)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
