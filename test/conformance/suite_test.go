package conformance

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// level says how strongly a rule binds.
type level string

const (
	must   level = "MUST"
	should level = "SHOULD"
)

// item is one rule, and a check whether a plugin keeps it.
type item struct {
	id    string
	level level
	rule  string
	check func(*stage)
}

// items are all rules, in the order of the table.
var items = slices.Concat(
	protocolItems, environmentItems, configurationItems, requestedAddressItems,
	addItems, addFailureItems, delItems, delForeignItems, checkItems, checkNoticesItems,
	statusItems, gcItems, resultItems, versionItems, errorItems, delegationItems, lifecycleItems,
	knownWrongItems, knownWrongAddressItems, libraryItems, runtimeItems, chainItems,
)

type outcome string

const (
	pass          outcome = "pass"
	fail          outcome = "FAIL"
	notApplicable outcome = "n/a"
)

// verdict is how a plugin fared with an item, and what was seen if not well.
type verdict struct {
	outcome outcome
	seen    string
}

// judge checks one item on a stage of its own.
func judge(t *testing.T, it item, p plugin) (v verdict) {
	s := newStage(t, p)
	defer func() {
		switch end := recover().(type) {
		case nil:
		case verdict:
			v = end
		default:
			v = verdict{fail, fmt.Sprintf("the suite itself is at fault: %v\n%s", end, debug.Stack())}
		}
	}()
	it.check(s)
	return verdict{outcome: pass}
}

// suite runs all items against a plugin, each as a subtest. Items on the list
// of shortcomings must fail, and nothing else may.
func suite(t *testing.T, p plugin, shortcomings map[string]string) {
	verdicts := make([]verdict, len(items))
	var lock sync.Mutex
	t.Cleanup(func() { t.Log("\n" + table(p, verdicts)) })
	for i, it := range items {
		t.Run(it.id, func(t *testing.T) {
			t.Parallel()
			v := judge(t, it, p)
			for again := 0; again < 5 && v.outcome == fail && p.misfortune != nil && p.misfortune(v.seen); again++ {
				t.Logf("judged again, since the machine is too busy for the plugin: %s", v.seen)
				v = judge(t, it, p)
			}
			lock.Lock()
			verdicts[i] = v
			lock.Unlock()
			reason, expected := shortcomings[it.id]
			switch {
			case v.outcome == fail && !expected:
				t.Errorf("%s: %s %s\nseen: %s", it.id, it.level, it.rule, v.seen)
			case v.outcome == pass && expected:
				t.Errorf("%s: %s %s\npassed, although it is known to fail: %s", it.id, it.level, it.rule, reason)
			}
		})
	}
}

// table renders verdicts for people.
func table(p plugin, verdicts []verdict) string {
	var b strings.Builder
	counts := map[outcome]int{}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "item\tlevel\tresult\trule\n")
	for i, it := range items {
		v := verdicts[i]
		if v.outcome == "" {
			continue // not selected by -run
		}
		counts[v.outcome]++
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", it.id, it.level, v.outcome, it.rule)
		if v.seen != "" {
			fmt.Fprintf(w, "\t\t\t  seen: %s\n", strings.Join(strings.Fields(v.seen), " "))
		}
	}
	w.Flush()
	fmt.Fprintf(&b, "%s: %d passed, %d failed, %d not applicable\n", p.path, counts[pass], counts[fail], counts[notApplicable])
	return b.String()
}

func TestEveryItemHasItsOwnNumberAndRule(t *testing.T) {
	ids, rules := map[string]bool{}, map[string]bool{}
	for _, it := range items {
		if ids[it.id] || rules[it.rule] {
			t.Errorf("%s: %q is there twice", it.id, it.rule)
		}
		ids[it.id], rules[it.rule] = true, true
	}
	for id, reason := range ptpShortcomings {
		if !ids[id] {
			t.Errorf("ptp is said to fail %s (%s), which does not exist", id, reason)
		}
	}
}
