package host

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestSplitQuoted(t *testing.T) {
	for line, want := range map[string]string{
		``:                       `[]`,
		`-P FORWARD DROP`:        `["-P" "FORWARD" "DROP"]`,
		`--comment "a b" -j X`:   `["--comment" "a b" "-j" "X"]`,
		`--comment "a \"b\" \\"`: `["--comment" "a \"b\" \\"]`,
		`a  "" b`:                `["a" "" "b"]`,
	} {
		if got := fmt.Sprintf("%q", splitQuoted(line)); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func TestForwardDifference(t *testing.T) {
	const (
		docker = `-A FORWARD -j DOCKER-USER` + "\n" + `-A FORWARD -o docker0 -m comment --comment "not ours" -j ACCEPT` + "\n"
		from   = `-A FORWARD -s 10.244.1.0/24 -m comment --comment "flatnet: pods" -j ACCEPT` + "\n"
		to     = `-A FORWARD -d 10.244.1.0/24 -m comment --comment "flatnet: pods" -j ACCEPT` + "\n"
		old    = `-A FORWARD -s 10.244.9.0/24 -m comment --comment "flatnet: pods" -j ACCEPT` + "\n"
		all    = `-A FORWARD -m comment --comment "flatnet: pods" -j ACCEPT` + "\n"
		reject = `-A FORWARD -j REJECT --reject-with icmp-host-prohibited` + "\n"
	)
	for _, test := range []struct{ name, rules, want string }{
		{"none", "", "+from +to"},
		{"docker's", docker, "+from +to"},
		{"complete", docker + from + to, ""},
		{"other order", to + docker + from, ""},
		{"one", docker + to, "+from"},
		{"twice", from + to + from, "-from"},
		{"another podCIDR", old + docker, "+from +to -old"},
		{"without an address", all + from + to, "-all"},
		{"behind a reject", docker + reject + from + to, "!"},
		{"before a reject", from + to + reject, ""},
		{"one behind a reject", from + reject + to, "!"},
		{"to be appended to a reject", from + reject, "+to !"},
	} {
		f := parseForward("-P FORWARD DROP\n-N OTHER\n" + test.rules)
		if !f.drops {
			t.Errorf("%s: policy not seen", test.name)
		}
		wanted := acceptRules(prefixes("10.244.1.0/24"), false)
		missing, surplus := f.difference(wanted)
		name := func(rule []string) string {
			for name, line := range map[string]string{"from": from, "to": to, "old": old, "all": all} {
				if slices.Equal(rule, splitQuoted(strings.TrimSpace(line))[2:]) {
					return name
				}
			}
			return strings.Join(rule, " ")
		}
		var got []string
		for _, r := range missing {
			got = append(got, "+"+name(r))
		}
		for _, r := range surplus {
			got = append(got, "-"+name(r))
		}
		if f.obstacle(wanted) != nil {
			got = append(got, "!")
		}
		if text := strings.Join(got, " "); text != test.want {
			t.Errorf("%s: %q, want %q", test.name, text, test.want)
		}
	}
	if parseForward("-P FORWARD ACCEPT\n").drops || parseForward("-P INPUT DROP\n").drops {
		t.Error("a policy that is none of FORWARD, or does not drop, is taken for one")
	}
}
