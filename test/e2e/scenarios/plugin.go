package scenarios

import (
	"os"
	"path/filepath"
	"strings"
)

// plugin is what users of `kubectl flatnet` do, on a cluster where all is well.
func plugin() []Scenario {
	const group = "kubectl flatnet"
	return []Scenario{
		{group, "status", func(r *Run) (string, error) { return r.flatnet("status") }},
		{group, "check", func(r *Run) (string, error) { return r.flatnet("check", "--nodes", "0") }},
		{group, "why", why},
		{group, "bugreport", bugreport},
	}
}

// flatnet runs the plugin as kubectl finds it, and returns the line that sums up what it
// says: that of status comes first, all others have theirs at the end.
func (r *Run) flatnet(arguments ...string) (string, error) {
	if r.Lab.Plan().Options.CNI != "flatnet" {
		return "", skipped("the cluster has another pod network")
	}
	text, err := r.Lab.Kubectl(append([]string{"flatnet"}, arguments...)...)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if arguments[0] == "status" {
		return lines[0], nil
	}
	return lines[len(lines)-1], nil
}

// why walks from a pod to one on another node, and back.
func why(r *Run) (string, error) {
	all, err := r.everywhere("walked", false)
	if err != nil {
		return "", err
	}
	first, last := r.Namespace+"/"+all[0].Name, r.Namespace+"/"+all[len(all)-1].Name
	if _, err := r.flatnet("why", first, last, "8080"); err != nil {
		return "", err
	}
	return r.flatnet("why", last, first, "8080/udp")
}

func bugreport(r *Run) (string, error) {
	directory, err := os.MkdirTemp("", "bugreport")
	if err != nil {
		return "", err
	}
	r.after(func() error { return os.RemoveAll(directory) })
	return r.flatnet("bugreport", "-o", filepath.Join(directory, "report.tar.gz"))
}
