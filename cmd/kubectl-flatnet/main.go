// Command kubectl-flatnet is a plugin of kubectl, `kubectl flatnet`; see docs/kubectl.md. Under
// the name kubectl_complete-flatnet, it completes that command's words in a shell.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/flatnet-cni/flatnet/pkg/kubectl"
)

// version is set by the linker.
var version = "development"

func main() {
	if strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") == kubectl.CompleterName {
		kubectl.Complete(os.Args[1:], os.Stdout)
		return
	}
	klog.SetLogger(logr.Discard()) // what client-go logs comes back as an error, too
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // who interrupts twice does not want to wait for what is cleaned up
	os.Exit(kubectl.Main(ctx, version, os.Args[1:], os.Stdout, os.Stderr))
}
