package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/page"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

const containerdText = `# HELP containerd_cri_network_plugin_operations_duration_seconds_seconds latency
# TYPE containerd_cri_network_plugin_operations_duration_seconds_seconds histogram
containerd_cri_network_plugin_operations_duration_seconds_seconds_bucket{operation_type="set_up_pod",le="+Inf"} 62
containerd_cri_network_plugin_operations_duration_seconds_seconds_sum{operation_type="set_up_pod"} 13.039531540999996
containerd_cri_network_plugin_operations_duration_seconds_seconds_count{operation_type="set_up_pod"} 62
containerd_cri_sandbox_create_network_seconds_sum 0.5
containerd_cri_sandbox_create_network_seconds_count 2
kubelet_version{text="a } b"} 1 1700000000000
process_start 1.7e+09
`

func TestMetrics(t *testing.T) {
	m, err := readMetrics(containerdText)
	if err != nil {
		t.Fatal(err)
	}
	before, err := readMetrics(strings.ReplaceAll(strings.ReplaceAll(containerdText, "13.039", "1.039"), " 62", " 2"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		got  work
		want string
	}{
		{m.all(cniAdd), "62 in 13.04s, mean 210.315ms"},
		{m.all(networkReady), "2 in 500ms, mean 250ms"},
		{m.all(cniDel), "0 in 0s, mean 0s"},
		{m.since(before, cniAdd), "60 in 12s, mean 200ms"},
		{m.since(metrics{}, cniAdd), "62 in 13.04s, mean 210.315ms"},
		{m.since(m, cniAdd), "0 in 0s, mean 0s"},
	} {
		got := fmt.Sprintf("%d in %s, mean %s", c.got.count, c.got.sum.Round(10*time.Millisecond), c.got.mean().Round(time.Microsecond))
		if got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	if m[`kubelet_version{text="a } b"}`] != 1 || m["process_start"] != 1.7e9 {
		t.Errorf("series with spaces, or without labels: %v", m)
	}
	if _, err := readMetrics("name value\n"); err == nil {
		t.Error("what is no number was read")
	}
}

func TestWhoAttachedPods(t *testing.T) {
	before := networks("cni-loopback-1-lo\nflatnet-a1-eth0\n")
	now := networks("cni-loopback-1-lo\ncni-loopback-2-lo\nflatnet-a1-eth0\nmy-net-b2-eth0\nmy-net-c3-eth0\n")
	for _, c := range []struct {
		network string
		count   int
		want    string
	}{
		{"my-net", 2, "<nil>"},
		{"my-net", 3, "2 pods were attached by network my-net: want 3"},
		{"flatnet", 0, "2 pods were attached by network my-net: want 0"},
	} {
		if got := fmt.Sprint(onlyBy(c.network, c.count, before, now)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.network, got, c.want)
		}
	}
	if got := fmt.Sprint(onlyBy("other", 1, before, before)); got != "no pod was attached by network other: want 1" {
		t.Errorf("nothing new: %s", got)
	}
}

func TestReadyPodsAreRead(t *testing.T) {
	for line, want := range map[string]string{
		"a-0":                  " false",
		"a-0  False":           " false",
		"a-0 10.245.0.2 False": " false",
		"a-0 10.245.0.2 True":  "a-0 true",
		"":                     " false",
	} {
		pod, ready := isReady(line)
		if got := fmt.Sprint(pod, " ", ready); got != want {
			t.Errorf("%q: got %s, want %s", line, got, want)
		}
	}
}

func TestManifestNamesNodeAndGroup(t *testing.T) {
	text := manifest("worker1", names("burst", 2))
	for _, want := range []string{"name: burst-0, labels: {group: burst}", "name: burst-1, labels: {group: burst}", "nodeName: worker1"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestReferenceHasTheFamiliesOfTheCluster(t *testing.T) {
	for family, want := range map[string]string{
		"ipv4": "10.245.0.0/24", "ipv6": "fd00:245::/64", "dual": "10.245.0.0/24 fd00:245::/64",
	} {
		all := contenders(plan.New(plan.Options{Workers: 1, Subnets: 1, Family: family}))
		var list struct {
			Name    string
			Plugins []struct {
				Type string
				IPAM struct{ Ranges [][]struct{ Subnet string } }
			}
		}
		if err := json.Unmarshal([]byte(all[1].conflist), &list); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, set := range list.Plugins[0].IPAM.Ranges {
			got = append(got, set[0].Subnet)
		}
		if strings.Join(got, " ") != want || list.Name != all[1].network {
			t.Errorf("%s: network %s of %q, want %s of %q", family, list.Name, got, all[1].network, want)
		}
	}
}

// some turns in which all of one kind takes so many milliseconds.
func turns(milliseconds ...int) (all []turn) {
	for _, ms := range milliseconds {
		d := time.Duration(ms) * time.Millisecond
		w := work{count: 60, sum: 60 * d}
		p := part{w, w, w, w, w, []time.Duration{20 * d}, []time.Duration{30 * d, 30 * d, 40 * d}}
		all = append(all, turn{burst: p, single: p})
	}
	return all
}

func TestSection(t *testing.T) {
	ours, theirs := contender{name: "flatnet"}, contender{name: "ptp"}
	text := section(ours, theirs, map[string][]turn{"flatnet": turns(100, 130, 120), "ptp": turns(200, 200, 300)}, 60)
	for _, want := range []string{
		"\n| 60 pods at once, flatnet       |    120 (100–130) |",
		"\n| 60 pods at once, ptp           |    200 (200–300) |",
		"\n| 60 pods at once, flatnet / ptp | 0.50 (0.40–0.65) |",
		"\n| one pod, flatnet / ptp         | 0.50 (0.40–0.65) |",
		" 2.40 (2.00–2.60) |",   // ready
		" 3.60 (3.00–3.90) |\n", // gone
		"\n| CNI ADD, 60 pods at once, flatnet / ptp | 0.50 (0.40–0.65) |  ≤ 0.5 |     yes |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	missed := section(ours, theirs, map[string][]turn{"flatnet": turns(111), "ptp": turns(200)}, 60)
	if !strings.Contains(missed, "|  ≤ 0.5 |      no |") {
		t.Errorf("a target that was missed is not told:\n%s", missed)
	}
}

func TestPageKeepsWhatOthersMeasured(t *testing.T) {
	const others = "# Benchmarks\n\n## Size\n\n| a |\n"
	first, err := amended(others, "dual", "both\n")
	if err != nil {
		t.Fatal(err)
	}
	const dual = "## Time to pod: a dual-stack cluster\n\nboth\n\n<!-- explanation: time-to-pod-dual -->\n<!-- end of explanation -->\n"
	want := others + "\n" + page.ClusterMark + "\n<!-- explanation: time-to-pod -->\n<!-- end of explanation -->\n\n" + dual
	if first != want {
		t.Errorf("got\n%swant\n%s", first, want)
	}
	explained := strings.NewReplacer("time-to-pod -->\n", "time-to-pod -->\nall\n", "time-to-pod-dual -->\n", "time-to-pod-dual -->\nwhy\n").Replace(first)
	second, err := amended(explained, "ipv4", "four\n")
	if err != nil {
		t.Fatal(err)
	}
	if third, err := amended(second, "ipv4", "four\n"); err != nil || third != second {
		t.Errorf("%v: the same again is not the same:\n%s", err, third)
	}
	for _, want := range []string{others, "\nall\n", "\nwhy\n", "\nboth\n", "cluster of IPv4\n\nfour\n\n<!-- explanation: time-to-pod-ipv4 -->\n<!-- end"} {
		if !strings.Contains(second, want) {
			t.Errorf("no %q in\n%s", want, second)
		}
	}
	if strings.Index(second, "four") > strings.Index(second, "both") {
		t.Errorf("sections are not in their order:\n%s", second)
	}
	if _, err := amended(others, "ipv5", ""); err == nil {
		t.Error("a family that does not exist has a section")
	}
}
