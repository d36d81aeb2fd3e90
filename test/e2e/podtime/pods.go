package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/kube"
)

// readyLimit is how long pods of one kubectl apply may take.
const readyLimit = 3 * time.Minute

// names of count pods of a group.
func names(group string, count int) []string {
	all := make([]string, count)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%d", group, i)
	}
	return all
}

// manifest of pods that do nothing, on a node, labelled with their group. They
// end when they are asked to; without a period of grace the API would forget
// them before the node has.
func manifest(node string, pods []string) string {
	var text strings.Builder
	for _, name := range pods {
		fmt.Fprintf(&text, `---
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {group: %s}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 5
  automountServiceAccountToken: false
  enableServiceLinks: false
  tolerations: [{operator: Exists}]
  containers: [{name: pause, image: "%s", imagePullPolicy: IfNotPresent}]
`, name, group(name), node, kube.PauseImage)
	}
	return text.String()
}

// group of a pod's name.
func group(pod string) string {
	name, _, _ := strings.Cut(pod, "-")
	return name
}

// start makes pods with one kubectl apply, and returns the time until a user of
// the API saw all of them ready. They are of one group, which has no others.
func (b *bench) start(ctx context.Context, pods []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	watch, err := b.watch(ctx, group(pods[0]))
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if _, err := b.node.lab.KubectlInput(manifest(b.node.name, pods), "-n", b.namespace, "apply", "-f", "-"); err != nil {
		return 0, err
	}
	ready := map[string]bool{}
	for line := range watch {
		if pod, yes := isReady(line.text); yes {
			ready[pod] = true
		}
		if len(ready) == len(pods) {
			return line.at.Sub(begin), nil
		}
	}
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return 0, err
	}
	return 0, fmt.Errorf("%d of %d pods of group %s are ready after %s; `kubectl -n %s describe pods` says why",
		len(ready), len(pods), group(pods[0]), time.Since(begin).Round(time.Second), b.namespace)
}

// end deletes the pods of a group, and returns the time until none is left: the
// kubelet gives a pod up when its sandbox is stopped.
func (b *bench) end(group string) (time.Duration, error) {
	begin := time.Now()
	_, err := b.node.lab.Kubectl("-n", b.namespace, "delete", "pods", "-l", "group="+group, "--timeout=3m")
	return time.Since(begin), err
}

// watchFormat is what the watch prints of a pod, each time it changes.
const watchFormat = `jsonpath={.metadata.name} {.status.podIP} {.status.conditions[?(@.type=="Ready")].status}{"\n"}`

// isReady reads a line of the watch: a pod that is ready has an address, too.
func isReady(line string) (pod string, yes bool) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[2] != "True" {
		return "", false
	}
	return fields[0], true
}

// seen is a line, and when it was read.
type seen struct {
	text string
	at   time.Time
}

// watch follows the pods of a group until ctx ends. The API server also sends
// those that are there when the watch begins, so that none is missed.
func (b *bench) watch(ctx context.Context, group string) (<-chan seen, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.node.lab.Binaries(), "kubectl"),
		"-n", b.namespace, "get", "pods", "-l", "group="+group, "--watch", "-o", watchFormat)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.node.lab.Kubeconfig())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	lines, started := make(chan seen, 1000), make(chan error)
	go func() {
		// It ends with this program, however that ends; the kernel looks at the thread.
		runtime.LockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			select {
			case lines <- seen{scanner.Text(), time.Now()}:
			case <-ctx.Done():
			}
		}
		cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	return lines, nil
}
