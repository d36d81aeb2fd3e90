// Package measure has tests that say what flatnet takes on the kernel that they run
// on. They fail only where something does not work; lines that begin with "figure:"
// are for the table of kernels.
package measure

import (
	"fmt"
	"os"
	"testing"

	"github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/reference"
)

// Where the programs are.
var ours, peers string

func TestMain(m *testing.M) {
	var err error
	if peers, err = reference.Plugins(); err == nil {
		ours, err = binaries.Build()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
	cluster.Main(m)
}
