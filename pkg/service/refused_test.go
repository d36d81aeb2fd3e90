package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"
)

// picky is an nft on a kernel that refuses some rules.
type picky struct {
	knftables.Interface
	refuses string // a part of those rules; empty for none
}

func (p *picky) judge(tx *knftables.Transaction) error {
	if p.refuses != "" && strings.Contains(tx.String(), p.refuses) {
		return errors.New("Error: Could not process rule: Operation not supported")
	}
	return nil
}

func (p *picky) Run(ctx context.Context, tx *knftables.Transaction) error {
	if err := p.judge(tx); err != nil {
		return err
	}
	return p.Interface.Run(ctx, tx)
}

func (p *picky) Check(ctx context.Context, tx *knftables.Transaction) error {
	if err := p.judge(tx); err != nil {
		return err
	}
	return p.Interface.Check(ctx, tx)
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
		"":                          {"", nil},
		"!= @sources-tcp":           {"default/ranged", map[string]string{"192.0.2.1:80": "dropped"}},
		"vmap @outside":             {"default/local", map[string]string{"192.0.2.2:80": "dropped"}},
		"map @affinity-tcp":         {"default/sticky", map[string]string{"10.96.0.4:80": "10.244.1.5:8080 source kept | 10.244.2.6:8080 source kept"}},
		"update @affinity-udp":      {"default/sticky", nil},
		"reject with tcp reset":     {"connections to what has no endpoints", map[string]string{"10.96.0.1:81": "dropped"}},
		"numgen random mod 2 map":   {"fails", nil}, // nothing works without
		"add chain ip flatnet-serv": {"fails", nil},
	} {
		t.Run(refused, func(t *testing.T) {
			k, fake := newFakeKeeper(t)
			nft := &picky{fake, refused}
			k.nft = nft
			planner := NewPlanner(nodeN(1))
			for _, s := range world(t, variousServices) {
				planner.Set(s)
			}
			r, err := k.Sync(t.Context(), planner.Ruleset())
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
			tr := &tracer{t: t, tables: fake.Tables, node: nodeN(1)}
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
			r, err = k.Sync(t.Context(), planner.Ruleset())
			must(t, err)
			if (len(r.Refused) > 0) != (refused != "") {
				t.Errorf("then said %q", r.Refused)
			}
			// With a new kernel or nft all is as it would be.
			nft.refuses = ""
			r, err = k.Verify(t.Context(), planner.Ruleset())
			must(t, err)
			if len(r.Refused) > 0 || dump(fake) != freshDump(t, planner.Ruleset()) {
				t.Errorf("not mended: %q", r.Refused)
			}
		})
	}
}
