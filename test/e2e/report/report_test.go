package report

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	var text strings.Builder
	Table(&text, []Result{
		{"tutorial", "a pod", Pass, "1 s", time.Second},
		{"no NAT", "pod to node", Fail, "10.244.1.2 was seen as 172.30.0.2\nand more", 1500 * time.Millisecond},
		{"x", "y", Skip, "no kube-proxy", 0},
	})
	const want = `pass     1.0 s  tutorial: a pod: 1 s
FAIL     1.5 s  no NAT: pod to node: 10.244.1.2 was seen as 172.30.0.2 …
skip     0.0 s  x: y: no kube-proxy

1 passed, 1 failed, 1 skipped
`
	if text.String() != want {
		t.Errorf("got\n%swant\n%s", text.String(), want)
	}
}

func TestJUnit(t *testing.T) {
	var text strings.Builder
	if err := JUnit(&text, "flatnet", []Result{{"a", "b <c>", Fail, `"why" & how`, time.Second}, {"a", "d", Pass, "", 0}}); err != nil {
		t.Fatal(err)
	}
	var got suite
	if err := xml.Unmarshal([]byte(text.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Tests != 2 || got.Failures != 1 || got.Cases[0].Name != "b <c>" || got.Cases[0].Failure.Text != `"why" & how` || got.Cases[1].Failure != nil {
		t.Errorf("%s", text.String())
	}
}
