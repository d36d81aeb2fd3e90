package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// ruleComment marks the rules that are flatnet's.
const ruleComment = "flatnet: pods"

// variant is one of the four programs that keep a FORWARD chain.
type variant struct {
	program string // "iptables-nft"
	plain   string // "iptables": what the program may also be installed as
	nft     bool
	ipv6    bool
}

var variants = [...]variant{
	{program: "iptables-nft", plain: "iptables", nft: true},
	{program: "ip6tables-nft", plain: "ip6tables", nft: true, ipv6: true},
	{program: "iptables-legacy", plain: "iptables"},
	{program: "ip6tables-legacy", plain: "ip6tables", ipv6: true},
}

// forwardRules is what a program says of its FORWARD chain.
type forwardRules struct {
	drops bool       // its policy
	rules [][]string // arguments after "-A FORWARD", in order
}

// parseForward reads what `iptables -S FORWARD` prints.
func parseForward(text string) forwardRules {
	var f forwardRules
	for line := range strings.Lines(text) {
		words := splitQuoted(strings.TrimSpace(line))
		switch {
		case len(words) < 3 || words[1] != "FORWARD":
		case words[0] == "-P":
			f.drops = words[2] == "DROP"
		case words[0] == "-A":
			f.rules = append(f.rules, words[2:])
		}
	}
	return f
}

// splitQuoted splits a line into words as iptables prints them: a word with
// spaces stands in double quotes, in which a backslash escapes.
func splitQuoted(line string) []string {
	var words []string
	var word strings.Builder
	inWord, quoted, escaped := false, false, false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quoted:
			escaped = true
		case c == '"':
			quoted, inWord = !quoted, true
		case c == ' ' && !quoted:
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// isMarked reports whether a rule is flatnet's.
func isMarked(rule []string) bool {
	at := slices.Index(rule, "--comment")
	return at >= 0 && at+1 < len(rule) && rule[at+1] == ruleComment
}

// acceptRules are the rules for the prefixes: from them and to them; and, with
// Services, for what comes in to a Service and goes on to a pod of another node: its
// destination was translated here, which no packet's addresses tell.
func acceptRules(prefixes []netip.Prefix, services bool) [][]string {
	var rules [][]string
	add := func(match ...string) {
		rules = append(rules, append(match, "-m", "comment", "--comment", ruleComment, "-j", "ACCEPT"))
	}
	for _, p := range prefixes {
		add("-s", p.String())
		add("-d", p.String())
	}
	if services {
		add("-m", "conntrack", "--ctstate", "DNAT")
	}
	return rules
}

// difference returns the wanted rules that are missing, and the marked ones that
// are too many.
func (f forwardRules) difference(wanted [][]string) (missing, surplus [][]string) {
	missing = slices.Clone(wanted)
	for _, rule := range f.rules {
		if !isMarked(rule) {
			continue
		}
		at := slices.IndexFunc(missing, func(w []string) bool { return slices.Equal(w, rule) })
		if at >= 0 {
			missing = slices.Delete(missing, at, at+1)
		} else {
			surplus = append(surplus, rule)
		}
	}
	return missing, surplus
}

// obstacle returns a rule that drops or rejects everything before one of flatnet's,
// or before the end where one of those is missing yet. A rule before which somebody
// accepts all that the wanted rules do is none.
func (f forwardRules) obstacle(wanted [][]string) []string {
	missing, _ := f.difference(wanted)
	last := len(f.rules)
	if len(missing) == 0 {
		for i, rule := range f.rules {
			if isMarked(rule) {
				last = i
			}
		}
	}
	for i, rule := range f.rules[:last] {
		if len(rule) > 1 && rule[0] == "-j" && (rule[1] == "DROP" || rule[1] == "REJECT") {
			if acceptedBy(f.rules[:i], wanted) {
				return nil
			}
			return rule
		}
	}
	return nil
}

// acceptedBy reports whether rules accept all that the wanted ones do, by the same
// networks or broader ones and nothing else.
func acceptedBy(rules, wanted [][]string) bool {
	for _, w := range wanted {
		w = withoutComment(w)
		if !slices.ContainsFunc(rules, func(rule []string) bool { return covers(withoutComment(rule), w) }) {
			return false
		}
	}
	return true
}

// covers reports whether a rule does what the wanted one does, or that for a broader
// network.
func covers(rule, wanted []string) bool {
	if slices.Equal(rule, wanted) {
		return true
	}
	if len(rule) != 4 || len(wanted) != 4 || rule[0] != wanted[0] || rule[2] != "-j" || rule[3] != "ACCEPT" {
		return false
	}
	broader, err := netip.ParsePrefix(rule[1])
	network, wrong := netip.ParsePrefix(wanted[1])
	return err == nil && wrong == nil && broader.Bits() <= network.Bits() && broader.Contains(network.Addr())
}

func withoutComment(rule []string) []string {
	at := slices.Index(rule, "--comment")
	if at < 2 || at+1 >= len(rule) || rule[at-1] != "comment" {
		return rule
	}
	return slices.Concat(rule[:at-2], rule[at+2:])
}

// read asks a variant for its FORWARD chain.
func (k *Keeper) read(ctx context.Context, v variant) (program string, f forwardRules, err error) {
	program = v.program
	text, err := k.run(ctx, program, "-w", lockSeconds, "-S", "FORWARD")
	if errors.Is(err, exec.ErrNotFound) {
		// Where there is only one variant it may have the plain name only.
		version, plainErr := k.run(ctx, v.plain, "--version")
		if plainErr != nil || strings.Contains(version, "nf_tables") != v.nft {
			return program, f, err
		}
		program = v.plain
		text, err = k.run(ctx, program, "-w", lockSeconds, "-S", "FORWARD")
	}
	return program, parseForward(text), err
}

// lockSeconds is how long a program waits for others of its kind.
const lockSeconds = "5"

// command returns the arguments that add ("-A") or delete ("-D") a rule.
func command(verb string, rule []string) []string {
	return append([]string{"-w", lockSeconds, verb, "FORWARD"}, rule...)
}

// shell writes a command as people type it.
func shell(program string, arg []string) string {
	words := []string{program}
	for _, a := range arg {
		if strings.ContainsAny(a, " \"'\\$`") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// patience is how long a program may take: iptables-nft reads the whole ruleset for
// each rule, which on a busy node with the tables of a large cluster takes many seconds.
const patience = time.Minute

func (k *Keeper) run(ctx context.Context, program string, arg ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if k.Run != nil {
		return k.Run(ctx, program, arg...)
	}
	return execute(ctx, program, arg...)
}

// execute runs a program in the network namespace of the calling thread.
func execute(ctx context.Context, program string, arg ...string) (string, error) {
	var out, errOut strings.Builder
	c := exec.CommandContext(ctx, program, arg...)
	c.Stdout, c.Stderr = &out, &errOut
	// A child that keeps the pipes open after its parent's death is not waited for.
	c.WaitDelay = time.Second
	if err := c.Run(); err != nil {
		said := cmp.Or(strings.TrimSpace(errOut.String()), "no message")
		return out.String(), fmt.Errorf("running %s: %w: %s", shell(program, arg), err, said)
	}
	return out.String(), nil
}
