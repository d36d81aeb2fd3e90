// Package page_test looks at the page with a browser: that it shows what the cluster is.
package page_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

var pictures = flag.String("pictures", "", "write pictures of the page into this `directory`")

func newSimulated(nodes, pods int) *simulated {
	return &simulated{nodes: nodes, pods: pods, began: time.Now().Add(-26 * time.Hour), silent: map[string]bool{}, ways: map[string]string{}}
}

// picture writes what is seen, where the test was told to.
func (b *browser) picture(name string) {
	if *pictures == "" {
		return
	}
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(*pictures, name+".png"), get(b, chromedp.CaptureScreenshot()), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func TestPictures(t *testing.T) {
	s := newSimulated(3, 20)
	_, kubeconfig := newAPI(t, 3, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		for _, v := range []string{"overview", "nodes", "health", "pods", "services", "policies"} {
			b.view(v)
			time.Sleep(time.Second)
			b.picture(v + "-3-" + scheme)
		}
	}
}

func TestPictures300(t *testing.T) {
	s := newSimulated(300, 110)
	s.silent["n41"] = true
	s.ways["n7 n200"], s.ways["n200 n7"], s.ways["n90 n100"] = "lost", "lost", "lossy"
	_, kubeconfig := newAPI(t, 300, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		for _, v := range []string{"overview", "nodes", "health", "pods", "services", "policies"} {
			b.view(v)
			time.Sleep(4 * time.Second)
			b.picture(v + "-300-" + scheme)
		}
	}
}
