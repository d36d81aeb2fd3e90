package service

import (
	"os"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) {
	// Where nft is, which is not in everybody's PATH.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	netlab.Main(m)
}
