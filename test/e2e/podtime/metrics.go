package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// metrics are series in the text format of Prometheus, name and labels as they
// were written, and their values.
type metrics map[string]float64

// readMetrics reads the text format. Its lines are comments, or a series, a
// value, and perhaps a time. Spaces can be in labels.
func readMetrics(text string) (metrics, error) {
	all := metrics{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest := line, ""
		if end := strings.LastIndex(line, "}"); end >= 0 {
			name, rest = line[:end+1], line[end+1:]
		} else {
			name, rest, _ = strings.Cut(line, " ")
		}
		value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("reading metric %q: %w", line, err)
		}
		all[name] = number
	}
	return all, lines.Err()
}

// work is what was done of one kind: how often, and the time of all together,
// which is more than has passed where several were at it.
type work struct {
	count int
	sum   time.Duration
}

// mean is the time of one, 0 if there was none.
func (w work) mean() time.Duration {
	if w.count == 0 {
		return 0
	}
	return w.sum / time.Duration(w.count)
}

// histogram is the name of a metric in seconds, and its labels.
type histogram struct{ name, labels string }

// What the container runtime and the kubelet measure themselves. The names are
// those of containerd 1.6 to 2 and of Kubernetes 1.35.
var (
	// cniAdd and cniDel: all plugins of the configuration, and loopback.
	cniAdd = histogram{"containerd_cri_network_plugin_operations_duration_seconds_seconds", `{operation_type="set_up_pod"}`}
	cniDel = histogram{"containerd_cri_network_plugin_operations_duration_seconds_seconds", `{operation_type="tear_down_pod"}`}
	// networkReady: the namespace, and then cniAdd. It is what a sandbox begins with.
	networkReady = histogram{"containerd_cri_sandbox_create_network_seconds", ""}
	// sandboxRun and sandboxStop: from the kubelet's request to the answer.
	sandboxRun  = histogram{"kubelet_runtime_operations_duration_seconds", `{operation_type="run_podsandbox"}`}
	sandboxStop = histogram{"kubelet_runtime_operations_duration_seconds", `{operation_type="stop_podsandbox"}`}
)

// all is what was done of a kind since the program began. A series that is
// missing has not begun.
func (m metrics) all(h histogram) work {
	return work{
		count: int(m[h.name+"_count"+h.labels]),
		sum:   time.Duration(m[h.name+"_sum"+h.labels] * float64(time.Second)),
	}
}

// since is what was done of a kind after before.
func (m metrics) since(before metrics, h histogram) work {
	now, then := m.all(h), before.all(h)
	return work{count: now.count - then.count, sum: now.sum - then.sum}
}
