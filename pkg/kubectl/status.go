package kubectl

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"time"
)

var statusCommand = command{
	name: "status", does: "how flatnet is on every node, with what is wrong first", timeout: 10 * time.Second,
	prepare: func(set *flag.FlagSet, o *options) func(context.Context, *client, io.Writer, io.Writer) (int, error) {
		set.StringVar(&o.output, "o", "", "`json` for machines")
		return func(ctx context.Context, c *client, out, _ io.Writer) (int, error) {
			s, err := c.look(ctx, o.namespace)
			if err != nil {
				return 0, err
			}
			all := takeOverview(ctx, o.version, s, o.asker(c))
			all.takeBalancing(ctx, s, o.asker(c))
			if o.output == "json" {
				return all.exit(), printJSON(out, all)
			}
			all.print(out, time.Now())
			return all.exit(), nil
		}
	},
}

func printJSON(out io.Writer, document any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}
