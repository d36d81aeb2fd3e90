package kubectl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// options are what all commands have.
type options struct {
	kubeconfig, context, namespace string
	output                         string
	outputs                        []string // that -o may be; json where it is empty
	parallel                       int
	timeout, each                  time.Duration
	arguments                      []string // that are no flags
	version                        string   // of this program
}

// flags defines the flags of all commands.
func (o *options) flags(set *flag.FlagSet, timeout time.Duration) {
	set.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` that names the cluster; default: $KUBECONFIG, or ~/.kube/config")
	set.StringVar(&o.context, "context", "", "`name` of the context in it; default: the current one")
	set.StringVar(&o.namespace, "namespace", "", "flatnetd's `namespace`; default: that of the DaemonSet with the label "+agentLabel+", or flatnet")
	set.StringVar(&o.namespace, "n", "", "the same `namespace` as --namespace")
	set.IntVar(&o.parallel, "parallel", 100, "how many nodes are asked at a time")
	set.DurationVar(&o.each, "each", patience, "how long one node may take to answer a question")
	set.DurationVar(&o.timeout, "timeout", timeout, "how long all of it may take")
}

// check says what is wrong with what was given.
func (o *options) check() error {
	switch {
	case o.parallel < 1:
		return fmt.Errorf("--parallel %d asks nobody", o.parallel)
	case o.timeout <= 0 || o.each <= 0:
		return fmt.Errorf("--timeout %s or --each %s is no time", o.timeout, o.each)
	}
	outputs := o.outputs
	if outputs == nil {
		outputs = []string{"json"}
	}
	if o.output != "" && !slices.Contains(outputs, o.output) {
		return fmt.Errorf("-o %q is not %s", o.output, strings.Join(outputs, " or "))
	}
	return nil
}

func (o *options) clientConfig() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.context})
}

// asker asks agents as the flags say.
func (o *options) asker(c *client) asker { return asker{c, o.parallel, o.each} }

// overTime adds to an error that the time was over, if that is why.
func (o *options) overTime(ctx context.Context, err error) error {
	if err != nil && context.Cause(ctx) == errNoTime && !errors.Is(err, errNoTime) {
		return fmt.Errorf("%w (%s): %w", errNoTime, o.timeout, err)
	}
	return err
}

// podNamespace is where a pod is that is named without its namespace.
func (o *options) podNamespace() string {
	namespace, _, err := o.clientConfig().Namespace()
	if err != nil {
		return "default" // what is wrong is said when the cluster is looked for
	}
	return namespace
}

// restConfig finds the cluster as kubectl does.
func (o *options) restConfig() (*rest.Config, error) {
	config, err := o.clientConfig().ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no kubeconfig names a cluster: set KUBECONFIG, or give --kubeconfig")
	}
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	}
	return config, nil
}
