package page_test

import (
	"bytes"
	"cmp"
	"flag"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
)

var pictures = flag.String("pictures", "", "write the pictures of the documentation into this `directory`")

// largestPicture is how many bytes a picture of the documentation may have.
const largestPicture = 150_000

// picture writes what is seen, where the test was told to.
func (b *browser) picture(name string) {
	b.t.Helper()
	if *pictures == "" {
		return
	}
	eval[bool](b, painted)
	seen, err := png.Decode(bytes.NewReader(get(b, chromedp.CaptureScreenshot())))
	must(b.t, err)
	var raw bytes.Buffer
	must(b.t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&raw, fewColours(seen)))
	if raw.Len() > largestPicture {
		b.t.Errorf("picture %s has %d bytes", name, raw.Len())
	}
	must(b.t, os.WriteFile(filepath.Join(*pictures, name+".png"), raw.Bytes(), 0o644))
}

// alike reports whether nobody tells two colours from each other.
func alike(a, b color.RGBA) bool {
	const near = 7
	apart := func(x, y uint8) bool { return max(x, y)-min(x, y) > near }
	return !apart(a.R, b.R) && !apart(a.G, b.G) && !apart(a.B, b.B)
}

// fewColours is the picture in 256 of its colours, those that most of it has: what is left
// are the edges of letters, of which nobody sees that.
func fewColours(of image.Image) image.Image {
	bounds := of.Bounds()
	uses := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(of.At(x, y)).(color.RGBA) }
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			uses[at(x, y)]++
		}
	}
	most := slices.SortedFunc(maps.Keys(uses), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(uses[b], uses[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B))
	})
	var palette color.Palette
	const sure = 48 // of grounds and texts
	for i, c := range most {
		if len(palette) < 256 && (i < sure || !slices.ContainsFunc(palette, func(p color.Color) bool { return alike(c, p.(color.RGBA)) })) {
			palette = append(palette, c)
		}
	}
	nearest := map[color.RGBA]uint8{}
	few := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := at(x, y)
			i, known := nearest[c]
			if !known {
				i = uint8(palette.Index(c))
				nearest[c] = i
			}
			few.SetColorIndex(x, y, i)
		}
	}
	return few
}

// A small and a large cluster as the documentation shows them. Without -pictures it is
// still seen that every view can be shown in both schemes of colours.
func TestPictures(t *testing.T) {
	small := newSite(t)
	b := open(t, ui(t, small.kubeconfig, quickly...), 1280, 720)
	b.reads("#headline", "3 nodes, all well")
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.view("overview")
		b.await("the matrix", `document.querySelectorAll(".grid td.ok button").length === 6`)
		b.picture("page-3-" + scheme)
	}
	large := newSimulated(300, 120)
	large.silent["n41"] = true
	large.ways["n7 n200"], large.ways["n200 n7"], large.ways["n90 n100"] = "lost", "lost", "lossy"
	_, kubeconfig := newAPI(t, large.nodes, large.execute)
	b = open(t, ui(t, kubeconfig), 1280, 800)
	b.reads("#headline", "4 of 300 nodes are not well")
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.view("overview")
		b.picture("page-300-" + scheme)
		b.view("nodes")
		b.await("the picture", `document.querySelectorAll(".joined-picture .dot").length === 300`)
		b.picture("page-nodes-300-" + scheme)
		b.view("health")
		b.await("the matrix", `document.querySelector(".field canvas")?.width > 300 && document.querySelector(".summary").innerText.includes("3 of 89,700")`)
		b.picture("page-health-300-" + scheme)
		b.view("pods")
		b.await("pods", `document.querySelector(".scroll tbody tr[data-at]")`)
		b.picture("page-pods-300-" + scheme)
	}
}
