package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/page"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func TestQuantiles(t *testing.T) {
	numbers := sample{5, 1, 4, 2, 3, 10, 9, 8, 7, 6}
	for _, c := range []struct {
		of   sample
		q    float64
		want time.Duration
	}{
		{nil, 0.5, 0},
		{sample{7}, 0, 7},
		{sample{7}, 0.5, 7},
		{sample{7}, 0.9, 7},
		{numbers, 0, 1},
		{numbers, 0.5, 5},
		{numbers, 0.9, 9},
		{numbers, 1, 10},
	} {
		if got := c.of.quantile(c.q); got != c.want {
			t.Errorf("quantile %g of %d is %d, want %d", c.q, c.of, got, c.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	one, two := sample{time.Millisecond}, sample{2 * time.Millisecond}
	quick, slow := []stint{{1, 1}, {4, 4}, {2, 2}}, []stint{{2, 4}, {8, 8}, {2, 2}}
	for _, c := range []struct {
		ratio ratio
		want  string
	}{
		{atMost("a", one, two, 0.5), "a 0.50 ≤ 0.5 yes"},
		{atMost("a", two, one, 1.9), "a 2.00 ≤ 1.9 no"},
		{atMost("a", nil, one, 1), "a not measured ≤ 1 "},
		{informative("a", one, nil), "a not measured  "},
		{informative("a", one, two), "a 0.50  "},
		{faster("a", slow, quick, 0), "a 0.50  "},
		{faster("a", quick, slow, 2), "a 2.00 ≥ 2 yes"},
		{faster("a", quick, slow, 2.5), "a 2.00 ≥ 2.5 no"},
		{faster("a", quick[:1], slow, 2.5), "a 3.00 ≥ 2.5 yes"},
		{faster("a", quick, nil, 2), "a not measured ≥ 2 "},
	} {
		if got := strings.Join(c.ratio.row(), " "); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestDocumentKeepsExplanations(t *testing.T) {
	sections := []section{{
		outline: outline{name: "colour", title: "Colour"},
		table:   table{head: []string{"", "ms"}, rows: [][]string{{"größer", "1.00"}}},
		ratios:  []ratio{{what: "b", shown: "2", target: "≤ 3", met: true}},
	}}
	first := document("", page.Machine{Cores: 2}, page.Machine{Cores: 2}, sections)
	const want = `
## Colour

|        |   ms |
|--------|-----:|
| größer | 1.00 |

|    | measured | target | reached |
|----|---------:|-------:|--------:|
| b  |        2 |    ≤ 3 |     yes |

<!-- explanation: colour -->
<!-- end of explanation -->
`
	if !strings.HasSuffix(first, want) {
		t.Errorf("got %s\nwant it to end with %s", first, want)
	}
	const mark = "<!-- explanation: colour -->\n"
	edited := strings.Replace(first, mark, mark+"\nBecause it is blue.\n\n", 1)
	if again := document(edited, page.Machine{Cores: 2}, page.Machine{Cores: 2}, sections); again != edited {
		t.Errorf("got %s\nwant %s", again, edited)
	}
	measured := edited + "\n" + page.ClusterMark + "\n## Elsewhere\n"
	if again := document(measured, page.Machine{Cores: 2}, page.Machine{Cores: 2}, sections); again != measured {
		t.Errorf("got %s\nwant %s", again, measured)
	}
	// A mark without its end takes nothing along.
	if again := document(mark+"lost", page.Machine{Cores: 2}, page.Machine{Cores: 2}, sections); again != first {
		t.Errorf("got %s\nwant %s", again, first)
	}
}

// programs builds the floor once for a test.
func programs(t *testing.T) *bench {
	t.Helper()
	floor, err := buildFloor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(floor) })
	return &bench{floor: floor, amount: smoke, contenders: regexp.MustCompile("")}
}

// The floor is a bound only as long as it makes what flatnet makes.
func TestFloorMakesAndRemovesItsObjects(t *testing.T) {
	b := programs(t)
	s := newSite()
	defer s.Close()
	r, err := b.runner(s, b.stub("floor"), nil)
	if err != nil {
		t.Fatal(err)
	}
	inside := s.Pod("floor")
	p := pod{id: inside.Name, path: inside.Path}
	if _, err := r.add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		space *netlab.Namespace
		args  string
		want  string
	}{
		{r.node.Namespace, "link show group 70", "alias " + p.id + "/eth0"},
		{r.node.Namespace, "route show proto 70", " dev veth"},
		{r.node.Namespace, "route show table local proto 70", "local 10.70.0.1 dev veth"},
		{r.node.Namespace, "neigh show nud permanent", " dev veth"},
		{inside, "addr show dev eth0", "/32 scope global eth0"},
		{inside, "route show", "default via 169.254.1.1 dev eth0 proto 70 onlink"},
		{inside, "neigh show nud permanent", "169.254.1.1 dev eth0 lladdr 02:70:00:00:00:01"},
	} {
		out, err := c.space.Output("ip", strings.Fields(c.args)...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("ip %s: %v: %q, want %q in it", c.args, err, out, c.want)
		}
	}
	if _, err := r.del(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if left, err := r.node.Output("ip", "link", "show", "group", "70"); err != nil || left != "" {
		t.Errorf("the node still has %q, %v", left, err)
	}
	if left, err := inside.Output("ip", "link", "show", "dev", "eth0"); err == nil {
		t.Errorf("the pod still has %q", left)
	}
}

func TestEverybodyTakesTheirTurns(t *testing.T) {
	b := programs(t)
	s := newSite()
	defer s.Close()
	slow := b.stub("noop")
	slow.name, slow.every = "slow", 2
	absent := b.stub("absent")
	runners, err := b.runners(s, b.stub("floor"), absent, slow)
	if err != nil {
		t.Fatal(err)
	}
	found, err := alternate(t.Context(), s, 3, runners)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		want int
	}{{"floor", 3}, {"slow", 2}, {"absent", 0}} {
		if adds, dels := len(found.add(c.name)), len(found.del(c.name)); adds != c.want || dels != c.want {
			t.Errorf("%s: %d ADDs and %d DELs, want %d", c.name, adds, dels, c.want)
		}
	}
	if err := b.complete(); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("got %v, want an error that names what was not measured", err)
	}
}

func TestBurstOfTheFloor(t *testing.T) {
	b := programs(t)
	if _, err := burst(t.Context(), b, b.stub("floor")); err != nil {
		t.Error(err)
	}
}

func TestPeakOfAddIsThatOfThePlugin(t *testing.T) {
	b := programs(t)
	peak, err := peakOfAdd(t.Context(), b, b.stub("noop"))
	if err != nil {
		t.Fatal(err)
	}
	if peak < 0.5*megabyte || peak > 20*megabyte {
		t.Errorf("a program that does nothing takes %.1f MB", peak/megabyte)
	}
}

func TestReservationsAreHostLocals(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "pods")
	if err := reserve(directory, 300); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"10.70.0.2":          "container-0\r\neth0",
		"10.70.1.45":         "container-299\r\neth0",
		"last_reserved_ip.0": "10.70.1.45",
	} {
		if got, err := os.ReadFile(filepath.Join(directory, file)); err != nil || string(got) != want {
			t.Errorf("%s: %v: %q, want %q", file, err, got, want)
		}
	}
}

func TestSectionsCanBeMeasuredOnTheirOwn(t *testing.T) {
	var all []section
	for _, o := range sections[:2] {
		all = append(all, section{outline: o, table: table{head: []string{"old " + o.name}}})
	}
	old := document("", page.Machine{Cores: 2}, page.Machine{Cores: 2}, all)
	old = strings.Replace(old, "<!-- explanation: size -->\n", "<!-- explanation: size -->\nby hand\n", 1)
	again := all[0]
	again.table.head = []string{"new"}
	got, err := amended(old, page.Machine{Cores: 2, Load: 7}, page.Machine{Cores: 2}, []section{again})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"| new ": true, "old size": false, "old latency": true, "by hand": true, "Load before: 7.00": true, "take the figures with care": true} {
		if strings.Contains(got, text) != want {
			t.Errorf("%q is in it: %v\n%s", text, !want, got)
		}
	}
	if _, err := amended("", page.Machine{}, page.Machine{}, all); err == nil {
		t.Error("what is not there was amended")
	}
}

// Every section can be asked for by a name that the page has.
func TestIntroductionNamesAllSections(t *testing.T) {
	for _, s := range sections {
		if !regexp.MustCompile(`[\s,]` + s.name + `[,.]`).MatchString(introduction) {
			t.Errorf("the introduction lacks %s", s.name)
		}
	}
}
