package kernel

import (
	"net/netip"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestWhichKernelsNeedNoOffload(t *testing.T) {
	for release, safe := range map[string]bool{
		"5.7.19-generic": false, "4.19.0": false, "5.8.0": true, "5.10.0-8-amd64": true, "6.18.44": true, "": true, "next": true,
	} {
		if offloadIsSafe(release) != safe {
			t.Errorf("%q: %v", release, !safe)
		}
	}
}

func TestTxChecksumsOfATunnelAreSwitchedOff(t *testing.T) {
	n := netlab.Start(t).Namespace("node")
	if err := n.Do(func() error {
		f, err := NewFabric("flatnet.vx")
		if err != nil {
			return err
		}
		defer f.Close()
		tunnel := Tunnel{Name: "flatnet.vx", VNI: 70, Port: 4789, From: netip.MustParseAddr("fd00::1"), MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1430}
		for _, err := range f.Apply([]Change{{Put, tunnel}}) {
			if err != nil {
				return err
			}
		}
		state := ethtoolValue{command: ethtoolGetTxChecksum}
		if err := ethtool(tunnel.Name, &state); err != nil {
			return err
		}
		if state.data == 0 {
			t.Errorf("checksums are not offloaded on this kernel (%s) from the start", kernelRelease())
		}
		if err := switchOffTxChecksum(tunnel.Name); err != nil {
			return err
		}
		if err := ethtool(tunnel.Name, &state); err != nil {
			return err
		}
		if state.data != 0 {
			t.Error("checksums are still offloaded")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
