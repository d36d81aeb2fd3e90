package kubectl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

var bugreportCommand = command{
	name: "bugreport", does: "all that is needed to find out what is wrong, in one .tar.gz", timeout: 5 * time.Minute,
	prepare: func(set *flag.FlagSet, o *options) func(context.Context, *client, io.Writer, io.Writer) (int, error) {
		file := set.String("o", "", "write to this `file`; default: flatnet-bugreport-TIME.tar.gz here")
		only := set.String("nodes", "", "only these nodes, by `names` separated by commas; default: all")
		lines := set.Int("lines", 2000, "how many lines of each log")
		return func(ctx context.Context, c *client, out, errOut io.Writer) (int, error) {
			now := time.Now()
			if *file == "" {
				*file = "flatnet-bugreport-" + now.UTC().Format("20060102-150405") + ".tar.gz"
			}
			s, err := c.look(ctx, o.namespace)
			if err != nil {
				return 0, err
			}
			if err := s.restrict(*only); err != nil {
				return 0, err
			}
			return exitFine, writeReport(ctx, c, s, o, *file, *lines, now, out, errOut)
		}
	},
}

// restrict leaves of the sites those that are named.
func (s *survey) restrict(names string) error {
	if names == "" {
		return nil
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(s.Sites, func(at site) bool { return at.Node == name }) {
			return fmt.Errorf("--nodes %s: the cluster has no such node", name)
		}
	}
	s.Sites = slices.DeleteFunc(s.Sites, func(at site) bool { return !slices.Contains(wanted, at.Node) })
	return nil
}

const reportReadme = `What kubectl flatnet bugreport has collected.

daemonset.json, configmaps.json, pods.json, nodes.json   objects of the cluster; lists have one a line
versions.txt                   this program's, and flatnetd's on the nodes
nodes/NODE/*.json              what flatnetd says there: docs/flatnetd.md
nodes/NODE/*.txt               its log, and what the kernel has
not-collected.txt              what could not be collected, and why

What looks like a password, a token or a private key was left out. Names and addresses of
nodes and pods are in it.

`

// writeReport writes the archive. A part that cannot be had is noted in it.
func writeReport(ctx context.Context, c *client, s *survey, o *options, file string, lines int, now time.Time, out, errOut io.Writer) (err error) {
	// Who else is on this machine is not to read it.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: remove it, or give another -o", file)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(file)
		}
	}()
	a := newArchive(f, strings.TrimSuffix(filepath.Base(file), ".tar.gz"), now, newRedactor(c.config).clean)
	a.add("README.txt", fmt.Appendf([]byte(reportReadme), "kubectl-flatnet %s, %s, namespace %s\n", o.version, now.UTC().Format(time.RFC3339), s.Namespace))
	for _, u := range s.Unknown {
		a.miss("nodes", errors.New(u))
	}
	collect := &collector{program: o.version, client: c, asker: o.asker(c), archive: a, lines: lines}
	collect.objects(ctx, s)
	var done atomic.Int64
	collect.nodes(ctx, s.Sites, func() {
		if n := done.Add(1); n%100 == 0 {
			fmt.Fprintf(errOut, "%d of %d nodes\n", n, len(s.Sites))
		}
	})
	apart := collect.writeVersions()
	missing := len(a.missing)
	if err := a.close(); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	fmt.Fprintf(out, "%s: %s asked", file, counted(int(done.Load()), "node"))
	if missing > 0 {
		fmt.Fprintf(out, "; %s not collected, %s in it says why", counted(missing, "thing"), notCollected)
	}
	for _, sentence := range apart {
		fmt.Fprintf(out, "\nnote: %s", sentence)
	}
	fmt.Fprintln(out, "\nIt has names and addresses of nodes and pods: look through it before you hand it on.")
	return nil
}
