package reference

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestPluginsAreBuiltOnceForAll(t *testing.T) {
	directories := make([]string, 4)
	var wait sync.WaitGroup
	for i := range directories {
		wait.Go(func() {
			directory, err := Plugins()
			if err != nil {
				t.Error(err)
			}
			directories[i] = directory
		})
	}
	wait.Wait()
	for _, directory := range directories {
		if directory != directories[0] {
			t.Errorf("built in %s and %s", directories[0], directory)
		}
	}
	for _, name := range []string{
		"ptp", "bridge", "loopback", "host-local", "static", "portmap", "bandwidth", "tuning", "firewall",
	} {
		info, err := os.Stat(filepath.Join(directories[0], name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s is not executable", name)
		}
	}
}
