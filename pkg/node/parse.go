package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseNodes reads a list of nodes, which it returns sorted by name. Every
// error names the line. What is wrong between nodes is not the parser's
// business, but Judge's.
func parseNodes(text []byte) ([]Node, error) {
	if line := unreadable(text); line > 0 {
		return nil, fmt.Errorf("line %d: has bytes that are no text in UTF-8", line)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, more yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, errNoNodes
	} else if err != nil {
		return nil, syntax(err, text)
	}
	if err := decoder.Decode(&more); err == nil {
		return nil, fault(&more, "a second YAML document: put all nodes into one list")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntax(err, text)
	}
	if len(document.Content) == 0 {
		return nil, errNoNodes
	}
	top, err := fields(document.Content[0], "the file", "nodes")
	if err != nil {
		return nil, err
	}
	list, err := entries(top["nodes"], "nodes")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errNoNodes
	}
	nodes := make([]Node, 0, len(list))
	lineOf := make(map[string]int, len(list))
	for i, item := range list {
		n, err := parseNode(item, entry("nodes", i))
		if err != nil {
			return nil, err
		}
		if line, taken := lineOf[n.Name]; taken {
			return nil, fault(item, "node %s: the name is that of the node in line %d", n.Name, line)
		}
		lineOf[n.Name] = item.Line
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, nil
}

// errNoNodes: an empty list would take the routes off every node, and is rather
// a file that was cut short.
var errNoNodes = errors.New("a list of zero nodes is taken for a mistake: list the nodes as in `nodes: [{name: n1, addresses: [172.30.0.1], podCIDRs: [10.244.1.0/24]}]`")

// parseNode reads one node; place names it until its name is known.
func parseNode(item *yaml.Node, place string) (Node, error) {
	f, err := fields(item, place, "name", "addresses", "podCIDRs", "zone", "labels")
	if err != nil {
		return Node{}, err
	}
	name := f["name"]
	switch {
	case name == nil:
		return Node{}, fault(item, "%s: has no name", place)
	case name.Kind != yaml.ScalarNode:
		return Node{}, fault(name, "%s: name must be a text, not %s", place, kind(name))
	case name.ShortTag() != "!!str":
		return Node{}, fault(name, "%s: name must be a text: write it in quotes, %q", place, name.Value)
	case name.Value == "" || len(name.Value) > 253 || strings.ContainsFunc(name.Value, notInName):
		return Node{}, fault(name, "%s: name %q must be 1 to 253 letters, digits, - and .", place, name.Value)
	}
	n := Node{Name: strings.Clone(name.Value)}
	place = "node " + n.Name
	if n.Zone, err = parseZone(f["zone"], place); err != nil {
		return Node{}, err
	}
	if n.Labels, err = parseLabels(f["labels"], place); err != nil {
		return Node{}, err
	}
	if n.Addresses, err = parseList(f["addresses"], place, "addresses", parseAddress); err != nil {
		return Node{}, err
	}
	if n.PodCIDRs, err = parseList(f["podCIDRs"], place, "podCIDRs", parsePodCIDR); err != nil {
		return Node{}, err
	}
	return n, nil
}

// parseZone reads a zone; none is empty.
func parseZone(zone *yaml.Node, place string) (string, error) {
	const longest = 63 // of a label's value
	switch {
	case zone == nil:
		return "", nil
	case zone.Kind != yaml.ScalarNode || zone.ShortTag() != "!!str":
		return "", fault(zone, "%s: zone must be a text, not %s", place, kind(zone))
	case zone.Value == "" || len(zone.Value) > longest || strings.ContainsFunc(zone.Value, notInName):
		return "", fault(zone, "%s: zone %q must be 1 to %d letters, digits, -, _ and .", place, zone.Value, longest)
	}
	return strings.Clone(zone.Value), nil
}

// parseLabels reads a mapping of texts, as Kubernetes has them.
func parseLabels(n *yaml.Node, place string) (map[string]string, error) {
	if n == nil {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, fault(n, "%s: labels must be a mapping, as in {rack: a}, not %s", place, kind(n))
	}
	labels := make(map[string]string, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Value == "" || value.Kind != yaml.ScalarNode || value.ShortTag() == "!!null" {
			return nil, fault(key, "%s: labels has an entry that is not a text with a text, as in {rack: a}", place)
		}
		labels[strings.Clone(key.Value)] = strings.Clone(value.Value)
	}
	return labels, nil
}

// notInName reports whether a rune cannot be in a node's name. Kubernetes has
// lower case only; a host's name may have upper case and underscores.
func notInName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
}

func parseAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, errors.New("is not an IP address")
	}
	a = a.Unmap()
	if reason := unfitAddress(a); reason != "" {
		return a, errors.New(reason)
	}
	return a, nil
}

func parsePodCIDR(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, errors.New("is not a prefix such as 10.244.1.0/24")
	}
	if p != p.Masked() {
		reason, _ := unfitPodCIDR(p)
		return p, errors.New(reason)
	}
	return p, nil
}

// parseList reads a list of texts that parse understands.
func parseList[T any](list *yaml.Node, place, field string, parse func(string) (T, error)) ([]T, error) {
	items, err := entries(list, place+": "+field)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	values := make([]T, 0, len(items))
	for i, item := range items {
		if text, ok := endsInColon(item); ok {
			return nil, fault(item, "%s: %s must be written in quotes, %q: YAML takes a colon at the end for a mapping", place, entry(field, i), text)
		}
		if item.Kind != yaml.ScalarNode {
			return nil, fault(item, "%s: %s must be a text, not %s", place, entry(field, i), kind(item))
		}
		v, err := parse(item.Value)
		if err != nil {
			return nil, fault(item, "%s: %s %q %w", place, entry(field, i), item.Value, err)
		}
		values = append(values, v)
	}
	return values, nil
}

// fields returns the values of a mapping that has none but the known keys.
func fields(n *yaml.Node, place string, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, fault(n, "%s must be a mapping with %s, not %s", place, strings.Join(known, ", "), kind(n))
	}
	values := make(map[string]*yaml.Node, len(known))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value) {
			return nil, fault(key, "%s: unknown key %q (known: %s)", place, key.Value, strings.Join(known, ", "))
		}
		if values[key.Value] != nil {
			return nil, fault(key, "%s: %s a second time", place, key.Value)
		}
		values[key.Value] = value
	}
	return values, nil
}

// entries returns the items of a list; one that is missing or null has none.
func entries(n *yaml.Node, what string) ([]*yaml.Node, error) {
	switch {
	case n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return nil, nil
	case n.Kind != yaml.SequenceNode:
		return nil, fault(n, "%s must be a list, not %s", what, kind(n))
	}
	return n.Content, nil
}

// endsInColon returns the text that was meant by what YAML takes for a mapping
// to nothing, such as fd00:30::
func endsInColon(n *yaml.Node) (text string, ok bool) {
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[0].Kind != yaml.ScalarNode || n.Content[1].ShortTag() != "!!null" {
		return "", false
	}
	return n.Content[0].Value + ":", true
}

// kind names what a YAML node is, in the words of somebody who writes one.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return fmt.Sprintf("the alias *%s (write out what it stands for)", n.Value)
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return "empty"
		}
		return fmt.Sprintf("%q", n.Value)
	}
	return "something else"
}

// fault is an error that begins with the line.
func fault(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("line %d: %w", n.Line, fmt.Errorf(format, args...))
}

// unreadable returns the first line with a byte that YAML does not allow, 0 if
// there is none: the YAML parser says of these only that they are there.
func unreadable(text []byte) (line int) {
	line = 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return line
		}
		text = text[size:]
	}
	return 0
}

// syntax gives an error of the YAML parser the form of the others. Its lines
// need help: the first is left out, that of an unknown anchor as well, and those
// of its parser, other than those of its scanner, count from zero (parser.fail
// in its decode.go).
func syntax(err error, text []byte) error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if n, _ := fmt.Sscanf(message, "line %d:", &line); n == 1 {
		_, message, _ = strings.Cut(message, ": ")
		if slices.Contains(countedFromZero, message) {
			line++
		}
	} else if _, anchor, ok := strings.Cut(message, "unknown anchor '"); ok {
		anchor, _, _ = strings.Cut(anchor, "'")
		before, _, _ := bytes.Cut(text, []byte("*"+anchor))
		line = 1 + bytes.Count(before, []byte("\n"))
	} else {
		line = 1
	}
	return fmt.Errorf("line %d: %s", line, message)
}

// countedFromZero are the messages of the parser (parserc.go) that a file
// without %YAML and %TAG directives can cause.
var countedFromZero = []string{
	"did not find expected <document start>",
	"did not find expected node content",
	"did not find expected '-' indicator",
	"did not find expected key",
	"did not find expected ',' or ']'",
	"did not find expected ',' or '}'",
}
