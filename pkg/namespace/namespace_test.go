package namespace

import (
	"errors"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

func TestOpenRefuses(t *testing.T) {
	for path, want := range map[string]error{
		"/proc/self/ns/net":   ErrOwn,
		"/proc/self/ns/uts":   ErrNone,
		"/dev/null":           ErrNone,
		t.TempDir():           ErrNone,
		"/nowhere/to/be/seen": ErrNone,
		"":                    ErrNone,
	} {
		n, err := Open(path)
		if !errors.Is(err, want) {
			t.Errorf("Open(%q) = %v, %v; want %v", path, n, err, want)
		}
	}
}
