// Package poddevice says what the interfaces of a test's pods are: veth, or netkit where
// the kernel has it.
package poddevice

import (
	"cmp"
	"os"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// The devices.
const (
	Veth   = "veth"
	Netkit = "netkit"
)

// Variable has the tests of a package run with another device than veth; it is that of
// flatnetd's flag.
const Variable = "FLATNETD_POD_DEVICE"

// Chosen is the device of tests that have no choice themselves. It skips the test where
// the kernel has none.
func Chosen(t testing.TB) string {
	t.Helper()
	device := cmp.Or(os.Getenv(Variable), Veth)
	need(t, device)
	return device
}

// Each runs a test with each device that the kernel has, and says of others what is missing.
func Each(t *testing.T, test func(t *testing.T, device string)) {
	for _, device := range []string{Veth, Netkit} {
		t.Run(device, func(t *testing.T) {
			need(t, device)
			test(t, device)
		})
	}
}

func need(t testing.TB, device string) {
	t.Helper()
	if missing := Missing(); device == Netkit && missing != "" {
		t.Skip(missing)
	}
}

// Missing says why the kernel has no netkit; "" where it has it.
func Missing() string {
	r := requirements.Check(requirements.Running{}, requirements.Netkit)
	for _, m := range r.Missing {
		return m.String() + ": " + m.Hint()
	}
	for _, err := range r.Unknown {
		return err.Error()
	}
	return ""
}
