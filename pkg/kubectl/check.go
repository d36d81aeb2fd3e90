package kubectl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkImage is Kubernetes' own test image, which says who asks it.
const checkImage = "registry.k8s.io/e2e-test-images/agnhost:2.59"

var checkCommand = command{
	name: "check", does: "whether pods of all nodes reach each other, tried with pods that are removed at the end, and what flatnetd says", timeout: 5 * time.Minute,
	prepare: func(set *flag.FlagSet, o *options) func(context.Context, *client, io.Writer, io.Writer) (int, error) {
		image := set.String("image", checkImage, "`image` of the pods: it must have /agnhost netexec, sh and curl")
		nodes := set.Int("nodes", 20, "try so many nodes, spread over the cluster; 0: all. Every pair of them is tried")
		wait := set.Duration("wait", 2*time.Minute, "how long the pods may take to be ready")
		set.StringVar(&o.output, "o", "", "`json` for machines")
		return func(ctx context.Context, c *client, out, errOut io.Writer) (int, error) {
			s, err := c.look(ctx, o.namespace)
			if err != nil {
				return 0, err
			}
			a := o.asker(c)
			agents := takeOverview(ctx, o.version, s, a)
			chosen := spread(s.Sites, *nodes)
			if len(chosen) == 0 {
				return 0, errors.New("no node has a flatnetd that runs: `kubectl flatnet status` says why")
			}
			t := &trial{client: c, asker: a, image: *image, wait: *wait, progress: errOut}
			result, err := t.run(ctx, chosen, len(s.Sites))
			if err != nil {
				return 0, err
			}
			result.Agents = agents
			if o.output == "json" {
				return result.exit(), printJSON(out, result)
			}
			result.print(out)
			return result.exit(), nil
		}
	},
}

// spread chooses some of the nodes where flatnetd can be asked, evenly over all; 0 is all.
func spread(sites []site, some int) (chosen []site) {
	var well []site
	for _, s := range sites {
		if s.Fault == nil {
			well = append(well, s)
		}
	}
	if some <= 0 || some >= len(well) {
		return well
	}
	for i := range some {
		chosen = append(chosen, well[i*len(well)/some])
	}
	return chosen
}

// trial tries the network with pods of its own.
type trial struct {
	client   *client
	asker    asker
	image    string
	wait     time.Duration
	progress io.Writer
}

// cleanupTimeout is for removing the namespace, which is done even when the time is over
// or somebody has interrupted.
const cleanupTimeout = 30 * time.Second

// run makes the pods, asks, and removes them, whatever happens.
func (t *trial) run(ctx context.Context, chosen []site, of int) (_ *trialResult, err error) {
	// Not named by the API server: a namespace of which the answer is lost is removed, too.
	namespace := fmt.Sprintf("%s-%x", trialName, time.Now().UnixNano())
	failure := t.makeNamespace(ctx, namespace)
	if apierrors.ReasonForError(failure) != metav1.StatusReasonUnknown {
		return nil, failure // the API server says that it has not made it
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		if failure := t.client.removeNamespace(ctx, namespace); failure != nil {
			err = errors.Join(err, fmt.Errorf("removing namespace %s: %w; remove it with `kubectl delete namespace %[1]s`", namespace, failure))
		}
	}()
	if failure != nil {
		return nil, failure
	}
	fmt.Fprintf(t.progress, "namespace %s: two pods on each of %d of %s\n", namespace, len(chosen), counted(of, "node"))
	places := twoOn(chosen)
	if err := t.makePods(ctx, namespace, places); err != nil {
		return nil, err
	}
	tried, err := t.await(ctx, namespace, places)
	if err != nil {
		return nil, err
	}
	result := t.ask(ctx, namespace, tried)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("ended before all was tried: %w", context.Cause(ctx))
	}
	return result, nil
}
