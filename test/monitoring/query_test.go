package monitoring

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// selector is a metric that a query asks for, with the labels that it asks for.
type selector struct {
	metric string
	labels []string
}

// query is what a query in PromQL asks for. Whether it is one at all is promtool's to
// say.
type query struct {
	selectors []selector
	labels    []string // that are summed by, matched on, and so on
}

var (
	tokens      = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\[[^\]]*\]|[a-zA-Z_:][a-zA-Z0-9_:]*|[0-9][0-9a-zA-Z.]*|[=!~<>]+|\S`)
	name        = regexp.MustCompile(`^[a-zA-Z_:]`)
	groupers    = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	words       = []string{"and", "or", "unless", "offset", "bool"}
	aggregators = []string{"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile"}
)

func parse(text string) (q query) {
	all := tokens.FindAllString(text, -1)
	at := func(i int) string {
		if i < len(all) {
			return all[i]
		}
		return ""
	}
	for i := 0; i < len(all); i++ {
		token := all[i]
		switch {
		case !name.MatchString(token) || slices.Contains(words, token) || slices.Contains(aggregators, token):
		case slices.Contains(groupers, token):
			if at(i+1) != "(" {
				continue
			}
			for i += 2; i < len(all) && at(i) != ")"; i++ {
				if name.MatchString(at(i)) {
					q.labels = append(q.labels, at(i))
				}
			}
		case at(i+1) == "(": // a function
		default:
			s := selector{metric: token}
			if at(i+1) == "{" {
				for i += 2; i < len(all) && at(i) != "}"; i++ {
					if name.MatchString(at(i)) {
						s.labels = append(s.labels, at(i))
					}
				}
			}
			q.selectors = append(q.selectors, s)
		}
	}
	return q
}

func TestParse(t *testing.T) {
	q := parse(`histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{x=~"b{c}|d", y!='e'}[5m]))) > 10 and on (z) f offset 1d unless sum without (w) (g)`)
	var got []string
	for _, s := range q.selectors {
		got = append(got, s.metric+"{"+strings.Join(s.labels, ",")+"}")
	}
	if !slices.Equal(got, []string{"a_bucket{x,y}", "f{}", "g{}"}) || !slices.Equal(q.labels, []string{"job", "le", "z", "w"}) {
		t.Errorf("asked for are %v by %v", got, q.labels)
	}
}
