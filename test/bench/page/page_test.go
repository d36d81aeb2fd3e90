package page

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	const want = `|        |   ms |
|--------|-----:|
| größer | 1.00 |
`
	if got := Table([]string{"", "ms"}, [][]string{{"größer", "1.00"}}); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		q    float64
		want float64
	}{
		{nil, 0.5, 0},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 3, 1, 2}, 0.5, 2},
		{[]float64{3, 1, 2}, 0, 1},
		{[]float64{3, 1, 2}, 1, 3},
	} {
		if got := Quantile(c.of, c.q); got != c.want {
			t.Errorf("quantile %g of %v is %g, want %g", c.q, c.of, got, c.want)
		}
	}
}

func TestWhatIsKept(t *testing.T) {
	const document = "a\n<!-- explanation: x -->\nwhy\n<!-- end of explanation -->\nb\n" + ClusterMark + "c\n"
	if got := Explanation(document, "x"); !strings.Contains(got, "-->\nwhy\n<!--") {
		t.Errorf("explanation is %q", got)
	}
	if got := Explanation(document, "y"); got != "<!-- explanation: y -->\n<!-- end of explanation -->\n" {
		t.Errorf("explanation that is not there is %q", got)
	}
	if got := Cluster(document); got != ClusterMark+"c\n" {
		t.Errorf("part of the cluster is %q", got)
	}
	if got := Cluster("a\n"); got != "" {
		t.Errorf("part that is not there is %q", got)
	}
}
