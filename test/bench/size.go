package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
)

const megabyte = 1e6

// measureSize looks at the programs' files, and at the memory that an ADD takes.
func measureSize(ctx context.Context, b *bench) (section, error) {
	found := section{table: table{head: []string{"", "MB"}}}
	add := func(what string, bytes, limit float64) {
		found.table.rows = append(found.table.rows, []string{what, fmt.Sprintf("%.1f", bytes/megabyte)})
		if limit > 0 {
			r := ratio{what: what, target: fmt.Sprintf("≤ %g MB", limit), met: bytes <= limit*megabyte}
			r.shown = fmt.Sprintf("%.1f MB", bytes/megabyte)
			found.ratios = append(found.ratios, r)
		}
	}
	files, err := filepath.Glob(filepath.Join(b.ours, "flatnet*"))
	if err != nil {
		return found, err
	}
	for _, file := range append(files, filepath.Join(b.peers, "ptp"), filepath.Join(b.peers, "host-local")) {
		limit := 0.0
		if filepath.Dir(file) == b.ours {
			limit = 8
		}
		if info, err := os.Stat(file); err == nil {
			add(file, float64(info.Size()), limit)
		}
	}
	for _, c := range b.present([]contender{
		b.flatnet("flatnet", single, false), b.flatnet("flatnet, dual stack, ipMasq", dual, true),
		b.ptp("ptp", single, false), b.stub("floor"),
	}) {
		peak, err := peakOfAdd(ctx, b, c)
		if err != nil {
			return found, err
		}
		limit := 0.0
		if c.directory == b.ours {
			limit = 25
		}
		add("peak memory of an ADD, "+c.name, peak, limit)
	}
	return found, nil
}

// peakOfAdd returns the peak memory of any program of an ADD in bytes, the largest of
// a few.
func peakOfAdd(ctx context.Context, b *bench, c contender) (float64, error) {
	s := newSite()
	defer s.Close()
	directory, err := b.directory("peak")
	if err != nil {
		return 0, err
	}
	meter := &peakMeter{launcher: filepath.Join(b.floor, "peak"), file: filepath.Join(directory, "bytes")}
	r, err := b.runner(s, c, meter)
	if err != nil {
		return 0, err
	}
	var largest float64
	for _, p := range s.podsFor(5) {
		if _, err := r.add(ctx, p); err != nil {
			return 0, err
		}
		largest = max(largest, meter.bytes)
	}
	return largest, nil
}

// peakMeter executes plugins as libcni does, but by way of the program peak.
type peakMeter struct {
	version.PluginDecoder
	launcher, file string
	bytes          float64
}

func (m *peakMeter) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

func (m *peakMeter) ExecPlugin(ctx context.Context, program string, stdin []byte, environment []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, m.launcher, program)
	cmd.Env = append(environment, "PEAK_FILE="+m.file)
	cmd.Stdin = strings.NewReader(string(stdin))
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		var told struct{ Msg string }
		json.Unmarshal(out, &told)
		return nil, fmt.Errorf("%w: %s%s", err, told.Msg, complaint.String())
	}
	raw, err := os.ReadFile(m.file)
	if err != nil {
		return nil, err
	}
	m.bytes, err = strconv.ParseFloat(string(raw), 64)
	return out, err
}
