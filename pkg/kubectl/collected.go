package kubectl

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const versionFile = "version.txt"

// perNode is what is asked of each node, by the name of its file. Whatever its image
// lacks is noted: what the kernel has is also in what flatnetd says. Nobody writes to it.
var perNode = []struct {
	file    string
	command []string
}{
	{versionFile, []string{agentName, "version"}},
	{"status.json", []string{agentName, "status", "-o", "json"}},
	{"pods.json", []string{agentName, "status", "pods", "-o", "json"}},
	{"policies.json", []string{agentName, "status", "policies", "-o", "json"}},
	{"services.json", []string{agentName, "status", "services", "-o", "json"}},
	{"bgp.json", []string{agentName, "status", "bgp", "-o", "json"}},
	{"announcements.json", []string{agentName, "status", "announcements", "-o", "json"}},
	{"flows.json", []string{agentName, "flows", "-o", "json", "--limit", "1000"}},
	{"addresses.txt", []string{"ip", "addr"}},
	{"routes.txt", []string{"ip", "route", "show", "table", "all"}},
	{"routes6.txt", []string{"ip", "-6", "route", "show", "table", "all"}},
	{"rules.txt", []string{"ip", "rule"}},
	{"rules6.txt", []string{"ip", "-6", "rule"}},
	{"neighbours.txt", []string{"ip", "neigh"}},
	{"nft.txt", []string{"nft", "list", "ruleset"}},
	{"metrics.txt", []string{"wget", "-q", "-O", "-", "http://127.0.0.1:9370/metrics"}},
}

// collector puts what it finds into an archive.
type collector struct {
	program string // the version of this program
	client  *client
	asker   asker
	archive *archive
	lines   int // of each log

	mu       sync.Mutex
	versions gathered // of flatnetd
}

// nodes asks all nodes, and calls done after each.
func (c *collector) nodes(ctx context.Context, sites []site, done func()) {
	asked := make([]bool, len(sites))
	atOnce(ctx, len(sites), c.asker.parallel, func(i int) {
		asked[i] = true
		c.node(ctx, sites[i])
		done()
	})
	for i, s := range sites {
		if !asked[i] {
			c.archive.miss(path.Join("nodes", s.Node), fmt.Errorf("it was not asked: %w", context.Cause(ctx)))
		}
	}
}

func (c *collector) node(ctx context.Context, s site) {
	in := func(file string) string { return path.Join("nodes", s.Node, file) }
	if s.Container.Pod == "" {
		c.archive.miss(in(""), errors.New(s.Fault.Reason))
		return
	}
	c.log(ctx, s, in("log.txt"), false)
	if s.Restarts > 0 {
		c.log(ctx, s, in("log-previous.txt"), true)
	}
	if s.Fault != nil {
		c.archive.miss(in(""), errors.New(s.Fault.Reason))
		return
	}
	for _, q := range perNode {
		out, err := c.one(ctx, s, q.command)
		if err == nil && q.file == versionFile {
			c.note(s.Node, strings.TrimSpace(string(out)))
		}
		if len(out) > 0 {
			c.archive.add(in(q.file), out)
		}
		if err != nil {
			c.archive.miss(in(q.file), err)
		}
		if errors.Is(err, errNoAnswer) || apierrors.IsForbidden(err) {
			c.archive.miss(in("…"), errors.New("nothing else was asked after that"))
			return
		}
	}
}

// note notes a node's version.
func (c *collector) note(node, version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions.add(node, version, "")
}

// writeVersions writes which versions were asked, and returns which of them are too far
// from this program's.
func (c *collector) writeVersions() (apart []string) {
	text := fmt.Sprintf("kubectl-flatnet %s\n", c.program)
	all := c.versions.sorted()
	for _, v := range all {
		slices.SortFunc(v.nodes, natural)
		text += fmt.Sprintf("flatnetd %s at %s\n", v.text, someOf(v.nodes, len(v.nodes)))
	}
	apart = skew(c.program, all)
	for _, sentence := range apart {
		text += sentence + "\n"
	}
	c.archive.add("versions.txt", []byte(text))
	return apart
}

// one executes a command, within its time.
func (c *collector) one(ctx context.Context, s site, command []string) ([]byte, error) {
	ctx, done := c.asker.limit(ctx)
	defer done()
	return c.asker.executor.Exec(ctx, s.Container, command...)
}

func (c *collector) log(ctx context.Context, s site, file string, previous bool) {
	ctx, done := c.asker.limit(ctx)
	defer done()
	text, err := raw(ctx, c.client.core.Get().Namespace(s.Container.Namespace).Resource("pods").Name(s.Container.Pod).SubResource("log").
		Param("container", s.Container.Name).Param("tailLines", strconv.Itoa(c.lines)).
		Param("timestamps", "true").Param("previous", strconv.FormatBool(previous)))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		c.archive.miss(file, err)
		return
	}
	c.archive.add(file, text)
}
