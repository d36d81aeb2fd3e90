package kubectl

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/page"
)

var uiCommand = command{
	name: "ui", does: "a page for the browser that shows nodes, health, pods, Services and policies, live", timeout: 10 * time.Second, lasting: true,
	prepare: func(set *flag.FlagSet, o *options) func(context.Context, *client, io.Writer, io.Writer) (int, error) {
		port := page.PortFlag(set)
		open := set.Bool("open", false, "open the page in a browser")
		interval := set.Duration("interval", 0, "how long what was found out is shown before nodes are asked again; default: 3s, and longer with more than 100 nodes")
		return func(ctx context.Context, c *client, out, errOut io.Writer) (int, error) {
			// What is wrong with the way to the cluster is said here, and not only on the page.
			source := &uiSource{client: c, options: o, name: o.contextName()}
			if err := source.find(ctx); err != nil {
				return 0, err
			}
			l, err := page.Listen(*port)
			if err != nil {
				return 0, err
			}
			server := page.New(source)
			server.Parallel, server.Interval = o.parallel, *interval
			remove := func() {}
			defer func() { remove() }()
			return exitFine, server.Serve(ctx, l, func(address string) error {
				if err := page.Announce(out, address); err != nil || !*open {
					return err
				}
				opened, err := openBrowser(ctx, address)
				if err != nil {
					fmt.Fprintln(errOut, "kubectl flatnet:", err)
					return nil
				}
				remove = opened
				return nil
			})
		}
	},
}

// contextName is that of the context which says what cluster it is.
func (o *options) contextName() string {
	if o.context != "" {
		return o.context
	}
	raw, err := o.clientConfig().RawConfig()
	if err != nil {
		return "" // what is wrong is said when the cluster is looked for
	}
	return raw.CurrentContext
}
