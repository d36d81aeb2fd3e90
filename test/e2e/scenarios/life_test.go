package scenarios

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPodsThatChanged(t *testing.T) {
	one, two := aPod("one", "10.244.1.2"), aPod("two", "10.244.1.3")
	one.UID, two.UID, one.Ready, two.Ready = "1", "2", true, true
	one.Containers, two.Containers = []string{"a"}, []string{"b"}
	change := func(p pod, f func(*pod)) pod { f(&p); return p }
	for _, c := range []struct {
		name    string
		now     []pod
		changed bool
		anew    string
	}{
		{"the same", []pod{two, one}, false, "pod shop/one has not come back\npod shop/two has not come back"},
		{"one was started anew", []pod{change(one, func(p *pod) { p.Containers = []string{"c"} }), two}, true, "pod shop/two has not come back"},
		{"both", []pod{change(one, func(p *pod) { p.Containers = []string{"c"} }), change(two, func(p *pod) { p.Containers = []string{"d"} })}, true, ""},
		{"one is not ready yet", []pod{change(one, func(p *pod) { p.Containers, p.Ready = []string{"c"}, false }), change(two, func(p *pod) { p.Containers = []string{"d"} })}, true, "pod shop/one has not come back"},
		{"another of the name", []pod{change(one, func(p *pod) { p.UID, p.Containers = "3", []string{"c"} }), change(two, func(p *pod) { p.Containers = []string{"d"} })}, true, "pod shop/one is not there"},
		{"another address", []pod{change(one, func(p *pod) { p.Addresses = two.Addresses }), two}, true, "pod shop/one has not come back\npod shop/two has not come back"},
		{"one is gone", []pod{two}, true, "pod shop/one is not there\npod shop/two has not come back"},
		{"one more", []pod{one, two, aPod("three", "10.244.1.4")}, true, "pod shop/one has not come back\npod shop/two has not come back"},
	} {
		if err := unchanged([]pod{one, two}, c.now); (err != nil) != c.changed {
			t.Errorf("%s: unchanged: %v", c.name, err)
		}
		if got := strings.TrimPrefix(fmt.Sprint(startedAnew([]pod{one, two}, c.now)), "<nil>"); got != c.anew {
			t.Errorf("%s: started anew: %q, want %q", c.name, got, c.anew)
		}
	}
}

func TestReadAnswers(t *testing.T) {
	at := func(second int) time.Time { return time.Date(2026, 11, 23, 10, 0, second, 0, time.UTC) }
	log := `2026-11-23T10:00:01.5Z unanswered http://a curl: (7) too early 0.001
2026-11-23T10:00:09.999999999Z answered http://a 0.002
2026-11-23T10:00:10.1Z answered http://a 0.200
2026-11-23T10:00:10.1Z answered http://a 0.002
2026-11-23T10:00:11.1Z answered http://b 0.002
2026-11-23T10:00:12.1Z answered http://b 0.002
2026-11-23T10:00:13.1Z unanswered http://a curl: (7) connection refused 0.001
2026-11-23T10:00:20.1Z answered http://b 0.200
2026-11-23T10:00:21Z answered http://a 0.002
2026-11-23T10:00:28Z unanswered http://b curl: (28) began before the end 10.001
2026-11-23T10:00:31Z unanswered http://b curl: (28) began after the end 10.001
`
	answered, unanswered, err := readAnswers(log, at(10), at(20))
	got := fmt.Sprint(answered, "\n", strings.Join(unanswered, "\n"), "\n", err)
	want := "map[http://a:1 http://b:3]\n" +
		"2026-11-23T10:00:13.1Z unanswered http://a curl: (7) connection refused 0.001\n" +
		"2026-11-23T10:00:28Z unanswered http://b curl: (28) began before the end 10.001\n<nil>"
	if got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
	for _, line := range []string{"no time at all 0.1\n", "2026-11-23T10:00:10.1Z\n", "2026-11-23T10:00:10.1Z answered http://a soon\n"} {
		if _, _, err := readAnswers(line, at(0), at(1)); err == nil {
			t.Errorf("%q was read", line)
		}
	}
}
