package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// picky are tables of a kernel that refuses some rules.
type picky struct {
	tables
	refuses string // a part of those rules; empty for none
}

// spoil makes of what is to be refused what every kernel refuses.
func (p *picky) spoil(want []nft.Table) []nft.Table {
	for _, t := range want {
		for i, c := range t.Chains {
			t.Chains[i].Rules = slices.Clone(c.Rules)
			for j, rule := range c.Rules {
				if p.refuses != "" && strings.Contains(rule, p.refuses) {
					t.Chains[i].Rules[j] = "goto nowhere"
				}
			}
		}
	}
	return want
}

func (p *picky) Sync(ctx context.Context, want []nft.Table, deltas ...nft.Delta) (nft.Result, bool, error) {
	return p.tables.Sync(ctx, p.spoil(want), deltas...)
}

func (p *picky) Verify(ctx context.Context, want []nft.Table) (nft.Result, error) {
	return p.tables.Verify(ctx, p.spoil(want))
}

const variousServices = `
web cluster=10.96.0.1 80
  8080 10.244.1.5@n1 10.244.2.6@n2
ranged cluster=10.96.0.2 80 lb=192.0.2.1 ranges=198.51.100.0/24
  8080 10.244.1.5@n1
local cluster=10.96.0.3 80 external=192.0.2.2 local=external
  8080 10.244.1.5@n1
sticky cluster=10.96.0.4 80 affinity=60
  8080 10.244.1.5@n1 10.244.2.6@n2
`

// What the kernel refuses keeps only those from being served who need it, and they
// are named.
func TestRefusedRules(t *testing.T) {
	for refused, want := range map[string]struct {
		services string // that are named
		ends     map[string]string
	}{
		"":                        {"", nil},
		"!= @sources-tcp":         {"default/ranged", map[string]string{"192.0.2.1:80": "dropped"}},
		"vmap @outside":           {"default/local", map[string]string{"192.0.2.2:80": "dropped"}},
		"map @affinity-tcp":       {"default/sticky", map[string]string{"10.96.0.4:80": "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"}},
		"update @affinity-udp":    {"default/sticky", nil},
		"reject with tcp reset":   {"connections to what has no endpoints", map[string]string{"10.96.0.1:81": "dropped"}},
		"numgen random mod 2 map": {"fails", nil}, // nothing works without
	} {
		t.Run(refused, func(t *testing.T) {
			k, ns := labKeeper(t)
			kernel := &picky{k.tables, refused}
			k.tables = kernel
			planner := NewPlanner(nodeN(1))
			for _, s := range world(t, variousServices) {
				planner.Set(s)
			}
			sync := func(how func(context.Context, *Ruleset) (Result, error)) (r Result, err error) {
				must(t, ns.Do(func() error { r, err = how(t.Context(), planner.Ruleset()); return nil }))
				return r, err
			}
			r, err := sync(k.Sync)
			if want.services == "fails" {
				if err == nil {
					t.Error("no error")
				}
				return
			}
			must(t, err)
			if said := fmt.Sprint(r.Refused); want.services == "" && len(r.Refused) > 0 || !strings.Contains(said, want.services) || strings.Contains(said, "default/web") {
				t.Errorf("said %q", said)
			}
			tr := newTracer(t, planner.Ruleset())
			tr.spare(k)
			for destination, end := range want.ends {
				if got := tr.trace("172.30.0.1", destination, TCP, true); got != end {
					t.Errorf("%s: %s, not %s", destination, got, end)
				}
			}
			if got := tr.trace("10.244.1.9", "10.96.0.2:80", TCP, false); !strings.HasPrefix(got, "10.244.1.5:8080") {
				t.Errorf("a Service that needs nothing of this: %s", got)
			}
			// What comes later is served, too, and the sentence stays.
			later := world(t, "later cluster=10.96.0.9 80 affinity=90\n  8080 10.244.1.5@n1 10.244.2.6@n2 10.244.3.6@n3")
			planner.Set(later[0])
			r, err = sync(k.Sync)
			must(t, err)
			if (len(r.Refused) > 0) != (refused != "") {
				t.Errorf("then said %q", r.Refused)
			}
			// With a new kernel or nft all is as it would be.
			kernel.refuses = ""
			r, err = sync(k.Verify)
			must(t, err)
			fresh, other := labKeeper(t)
			must(t, other.Do(func() error { _, err := fresh.Verify(t.Context(), planner.Ruleset()); return err }))
			if got, want := listing(t, ns), listing(t, other); len(r.Refused) > 0 || got != want {
				t.Errorf("not mended: %q\n%s", r.Refused, differences(got, want))
			}
		})
	}
}

// spare has the tracer follow what a keeper has in the place of what is refused.
func (tr *tracer) spare(k *Keeper) {
	for id, table := range tr.tables {
		refused := k.tables.Refused(id)
		table.chains = slices.Clone(table.chains)
		for i, c := range table.chains {
			if refused[c.Feature] != "" {
				table.chains[i].Rules = c.Spare
			}
		}
	}
}
