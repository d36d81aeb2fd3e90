package kubectl

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// CompleterName is the name under which kubectl executes a program that completes the words
// of `kubectl flatnet`.
const CompleterName = "kubectl_complete-flatnet"

// What the shell does beside offering the words, as cobra numbers it.
const (
	shellDefault = 0 // it offers files if there are no words
	shellNoFiles = 4
)

// Complete prints what the last of the arguments may become, one a line and with what it does,
// and what the shell shall do: kubectl reads it as that of a program made with cobra. It asks
// no cluster.
func Complete(arguments []string, out io.Writer) {
	if len(arguments) == 0 {
		arguments = []string{""}
	}
	before, last := arguments[:len(arguments)-1], arguments[len(arguments)-1]
	words, directive := completions(before, last)
	for _, w := range words {
		if strings.HasPrefix(w[0], last) {
			fmt.Fprintf(out, "%s\t%s\n", w[0], w[1])
		}
	}
	fmt.Fprintf(out, ":%d\n", directive)
}

// completions are words, each with what it does, that may come after others.
func completions(before []string, last string) (words [][2]string, directive int) {
	if len(before) == 0 {
		for _, c := range commands {
			words = append(words, [2]string{c.name, c.does})
		}
		return append(words, [2]string{"version", "the version of this program"}), shellNoFiles
	}
	set := flag.NewFlagSet("", flag.ContinueOnError)
	for _, c := range commands {
		if c.name == before[0] {
			o := &options{}
			o.flags(set, c.timeout)
			c.prepare(set, o)
		}
	}
	if previous := before[len(before)-1]; strings.HasPrefix(previous, "-") {
		if f := set.Lookup(strings.TrimLeft(previous, "-")); f != nil && !isSwitch(f) {
			return valuesOf(f)
		}
	}
	if !strings.HasPrefix(last, "-") {
		return nil, shellNoFiles
	}
	set.VisitAll(func(f *flag.Flag) {
		name := "--" + f.Name
		if len(f.Name) == 1 {
			name = "-" + f.Name
		}
		_, does := flag.UnquoteUsage(f)
		words = append(words, [2]string{name, does})
	})
	return words, shellNoFiles
}

// isSwitch reports whether a flag has no value: what follows it is something else.
func isSwitch(f *flag.Flag) bool {
	b, is := f.Value.(interface{ IsBoolFlag() bool })
	return is && b.IsBoolFlag()
}

// valuesOf reads in a flag's usage what its value is.
func valuesOf(f *flag.Flag) (words [][2]string, directive int) {
	switch value, does := flag.UnquoteUsage(f); value {
	case "json":
		return [][2]string{{value, does}}, shellNoFiles
	case "file":
		return nil, shellDefault
	default:
		return nil, shellNoFiles
	}
}
