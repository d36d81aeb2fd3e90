package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/conntrack"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/masquerade"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/rules"
)

// masquerading is the feature that gives what leaves the cluster the node's address,
// and keeps translated connections alive, those of Services included.
type masquerading struct {
	*feature.Shared
	config  Config
	keeper  *masquerade.Keeper
	hold    *masquerade.Hold
	rules   *rules.Rules
	planner masquerade.Planner
	task    *feature.Task

	ruleset masquerade.Ruleset
	written bool  // with success, once
	notHeld error // why translated connections may be cut by somebody's flush
	// pluginTables says that the plugin masquerades pods, by its own tables.
	pluginTables bool
	elements     *prometheus.GaugeVec
	holding      prometheus.Gauge
}

func newMasquerading(c Config, s *feature.Shared) *masquerading {
	f := &masquerading{
		Shared: s, config: c, keeper: &masquerade.Keeper{Log: s.Log}, hold: &masquerade.Hold{}, rules: &rules.Rules{},
		elements: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "flatnet_masquerade_set_elements", Help: "Elements of the sets of nftables table inet flatnet.",
		}, []string{"set"}),
		holding: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flatnet_translation_held", Help: "1 where established connections that are translated survive a flush of nftables' ruleset by somebody, 0 where the kernel cannot do it (before Linux 5.12) or nothing is translated.",
		}),
	}
	f.task = &feature.Task{
		Name: "masquerade", Run: s.OncePlanned(f.verify), Gap: 100 * time.Millisecond, Every: c.Resync,
		Advice: "look at `nft list table inet flatnet` and at who else changes it (`nft monitor`)",
	}
	return f
}

func (f *masquerading) feature() feature.Feature {
	return feature.Feature{
		Close: f.close, Tasks: []*feature.Task{f.task}, Follow: f.follow, Tables: f.watch, Ready: f.ready,
		Status:  func(context.Context) feature.Part { return f.status().part() },
		Metrics: []prometheus.Collector{f.elements, f.holding, tracking{}},
		Repairs: []string{"nftables"},
		Cleanup: feature.Removal{Do: f.remove},
	}
}

func (f *masquerading) close() {
	f.hold.Release()
	f.keeper.Close()
}

func (f *masquerading) follow(n feature.News) error {
	switch n {
	case feature.FabricJoined:
		f.task.By(time.Now().Add(f.config.Resync))
		return f.sync()
	case feature.SourcesChanged:
		return f.sync()
	}
	return nil
}

func (f *masquerading) masqueradeConfig() masquerade.Config {
	able := !f.Kernel.Lacks(requirements.Masquerade)
	c := masquerade.Config{
		IPv4: able && f.config.MasqueradeIPv4, IPv6: able && f.config.MasqueradeIPv6,
		Own: f.Plan.OwnPodCIDRs, Exempt: f.config.NonMasqueradeCIDRs, GuardIPv4: f.LooseSources && !f.Kernel.Lacks(requirements.Guard4),
		ClampMSS: f.config.ClampMSS,
	}
	const perNode = 2 // as a rule: one of each family
	c.Pods = make([]netip.Prefix, 0, perNode*len(f.Accepted))
	c.Nodes = make([]netip.Addr, 0, perNode*len(f.Accepted))
	for _, n := range f.Accepted {
		c.Pods = append(c.Pods, n.PodCIDRs...)
		c.Nodes = append(c.Nodes, n.Addresses...)
	}
	return c
}

func (f *masquerading) sync() error {
	c := f.masqueradeConfig()
	f.ruleset = f.planner.Plan(c)
	if !f.TablesPossible() {
		f.written = true // there is nothing to be done
		return nil
	}
	if _, err := f.keeper.Sync(f.ruleset); err != nil {
		return fmt.Errorf("writing nftables table inet flatnet: %w", err)
	}
	for set, n := range f.ruleset.Sizes() {
		f.elements.WithLabelValues(set).Set(float64(n))
	}
	if err := f.holdTranslation(c); err != nil {
		return err
	}
	f.written = true
	if !f.pluginTables {
		return nil
	}
	return f.exemptFromPlugin(c)
}

// holdTranslation lets established connections outlive somebody's `nft flush
// ruleset`, those of Services included, where the kernel can.
func (f *masquerading) holdTranslation(c masquerade.Config) error {
	if c.IPv4 || c.IPv6 || f.Services {
		f.notHeld = f.hold.Take()
	} else {
		f.hold.Release()
		f.notHeld = nil
	}
	f.holding.Set(truth(f.hold.Held()))
	if errors.Is(f.notHeld, masquerade.ErrNoOwners) {
		return nil // nobody can do anything about it
	}
	return f.notHeld
}

// exemptFromPlugin keeps a plugin that masquerades by itself (ipMasq) from
// translating what goes to pods of other nodes, which it does not know of. That
// its tables come up is told by nftables' notifications; until then nothing is
// asked, because to close nftables' socket takes ten milliseconds where
// somebody has just deleted something.
func (f *masquerading) exemptFromPlugin(c masquerade.Config) error {
	exempt := slices.Concat(c.Pods, c.Exempt)
	for _, n := range c.Nodes {
		exempt = append(exempt, netip.PrefixFrom(n, n.BitLen()))
	}
	present, _, err := f.rules.ExemptMore(exempt)
	if err != nil {
		return fmt.Errorf("exempting the cluster in the plugin's nftables tables: %w", err)
	}
	f.pluginTables = present
	return nil
}

// verify compares the agent's nftables table with the kernel, and mends it.
func (f *masquerading) verify(context.Context) error {
	if !f.TablesPossible() {
		return nil
	}
	repairs, err := f.keeper.Verify(f.ruleset)
	if f.written {
		f.Repaired("nftables", repairs)
	}
	if err != nil {
		return fmt.Errorf("comparing nftables table inet flatnet: %w", err)
	}
	c := f.masqueradeConfig()
	if err := f.holdTranslation(c); err != nil {
		return err
	}
	if err := f.exemptFromPlugin(c); err != nil {
		return err
	}
	f.written = true
	return nil
}

func (f *masquerading) watch() (nft.Listener, error) {
	return masquerade.NewWatcher(f.task.Ask, f.keeper)
}

func (f *masquerading) ready() error {
	if !f.written {
		return errors.New("masquerading is not set up yet")
	}
	return nil
}

// MasqueradeStatus is what happens to what leaves the cluster.
type MasqueradeStatus struct {
	Masquerade []string `json:"masquerade"` // families
	// NotHeld says why established connections that are translated may be cut by a
	// flush of nftables' ruleset; "" where they survive it.
	NotHeld  string `json:"translationNotHeld,omitempty"`
	ClampMSS bool   `json:"clampMSS"` // of TCP connections through the node
}

func (f *masquerading) status() MasqueradeStatus {
	s := MasqueradeStatus{Masquerade: []string{}, ClampMSS: f.config.ClampMSS && f.TablesPossible()}
	if !f.Kernel.Lacks(requirements.Masquerade) {
		if f.config.MasqueradeIPv4 {
			s.Masquerade = append(s.Masquerade, "IPv4")
		}
		if f.config.MasqueradeIPv6 {
			s.Masquerade = append(s.Masquerade, "IPv6")
		}
	}
	if f.notHeld != nil {
		s.NotHeld = f.notHeld.Error()
	}
	return s
}

func (s MasqueradeStatus) part() feature.Part {
	rows := []feature.Row{{Name: "masquerade", Value: list(s.Masquerade)}}
	if s.NotHeld != "" {
		rows = append(rows, feature.Row{Name: "translations", Value: "cut if somebody flushes nftables' ruleset: " + s.NotHeld})
	}
	if !s.ClampMSS {
		rows = append(rows, feature.Row{Name: "TCP segments", Value: "not clamped to the MTU of routes"})
	}
	return feature.Part{Document: s, Rows: rows}
}

func (f *masquerading) remove(context.Context) (removed []string, err error) {
	if !(requirements.Running{}).HasNftables() {
		return nil, nil
	}
	defer f.keeper.Close()
	there, err := f.keeper.Remove()
	if err != nil {
		return nil, err
	}
	removed, err = f.rules.RemoveAll()
	if there {
		removed = append(removed, "nftables table inet flatnet")
	}
	return removed, err
}

// tracking collects what the kernel says of the connections that it tracks, for which
// nobody has to wait for the agent.
type tracking struct{}

var (
	descriptionTracked = prometheus.NewDesc("flatnet_conntrack_entries", "Connections that the kernel tracks.", nil, nil)
	descriptionLimit   = prometheus.NewDesc("flatnet_conntrack_limit", "Connections that the kernel tracks at most; beyond it new ones are dropped.", nil, nil)
	descriptionInsert  = prometheus.NewDesc("flatnet_conntrack_insert_failed_total", "Connections whose first packet was dropped because their translation collided with another's.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (tracking) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descriptionTracked, descriptionLimit, descriptionInsert} {
		all <- d
	}
}

// Collect implements [prometheus.Collector].
func (tracking) Collect(all chan<- prometheus.Metric) {
	if entries, limit, err := conntrack.Tracked(); err == nil {
		all <- prometheus.MustNewConstMetric(descriptionTracked, prometheus.GaugeValue, float64(entries))
		all <- prometheus.MustNewConstMetric(descriptionLimit, prometheus.GaugeValue, float64(limit))
	}
	if failed, err := conntrack.InsertFailed(); err == nil {
		all <- prometheus.MustNewConstMetric(descriptionInsert, prometheus.CounterValue, float64(failed))
	}
}
