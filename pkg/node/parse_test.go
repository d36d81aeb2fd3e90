package node

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseNodes(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{{
		name: "flow style, as documented",
		text: `nodes: [{name: n2, addresses: [172.30.0.2], podCIDRs: [10.244.2.0/24]}, {name: n1, addresses: [172.30.0.1, "fd00:30::1"], podCIDRs: [10.244.1.0/24, "fd00:244:1::/64"]}]`,
		want: "n1 172.30.0.1 fd00:30::1 10.244.1.0/24 fd00:244:1::/64\nn2 172.30.0.2 10.244.2.0/24\n",
	}, {
		name: "block style, with what a hand writes",
		text: "---\n# the rack\nnodes:\n- name: n1 # the first\n  podCIDRs:\n  - 10.244.1.0/24\n- name: n2.example.org\n  addresses:\n  - fd00:30::2\n  podCIDRs:\n- name: \"3\"\n  addresses: []\n",
		want: "3\nn1 10.244.1.0/24\nn2.example.org fd00:30::2\n",
	}, {
		name: "JSON",
		text: `{"nodes": [{"name": "n1", "addresses": ["::ffff:172.30.0.1"], "podCIDRs": null}]}`,
		want: "n1 172.30.0.1\n",
	}, {
		name: "zones",
		text: "nodes:\n- {name: n1, zone: eu-1a}\n- {name: n2, zone: \"1\", podCIDRs: [10.244.2.0/24]}\n",
		want: "n1 zone=eu-1a\nn2 zone=1 10.244.2.0/24\n",
	}, {
		name: "what only Judge finds",
		text: "nodes:\n- {name: n1, podCIDRs: [10.244.1.0/24, 0.0.0.0/0]}\n- {name: n2, podCIDRs: [10.244.1.0/24]}\n",
		want: "n1 10.244.1.0/24 0.0.0.0/0\nn2 10.244.1.0/24\n",
	}} {
		t.Run(test.name, func(t *testing.T) {
			nodes, err := parseNodes([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if got := textOf(nodes, nil); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestParseNodesMalformed(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "a list of zero nodes is taken for a mistake"},
		{"\n# nothing yet\n", "a list of zero nodes is taken for a mistake"},
		{"nodes:\n", "a list of zero nodes is taken for a mistake"},
		{"nodes: []\n", "a list of zero nodes is taken for a mistake"},
		{"{}\n", "a list of zero nodes is taken for a mistake"},
		{"nodes: [\n{name: n1\n", "line 2: did not find expected ',' or '}'"},
		{"nodes:\n- name: n1\n\taddresses: []\n", "line 2: found a tab character that violates indentation"},
		{"nodes:\n- name: n1\n  name: \x00\n", "line 3: has bytes that are no text in UTF-8"},
		{"nodes:\n- name: \xff\n", "line 2: has bytes that are no text in UTF-8"},
		{"- name: n1\n", "line 1: the file must be a mapping with nodes, not a list"},
		{"n1\n", `line 1: the file must be a mapping with nodes, not "n1"`},
		{"~\n", "line 1: the file must be a mapping with nodes, not empty"},
		{"nodes:\n  n1: {}\n", "line 2: nodes must be a list, not a mapping"},
		{"nodes: n1\n", `line 1: nodes must be a list, not "n1"`},
		{"nodes: [n1]\n", `line 1: nodes[0] must be a mapping with name, addresses, podCIDRs, zone, labels, not "n1"`},
		{"nodes:\n- {name: n1}\nversion: 1\n", `line 3: the file: unknown key "version" (known: nodes)`},
		{"nodes:\n- {name: n1}\nnodes:\n- {name: n2}\n", "line 3: the file: nodes a second time"},
		{"nodes:\n- {name: n1}\n---\nnodes:\n- {name: n2}\n", "line 3: a second YAML document: put all nodes into one list"},
		{"nodes:\n- {name: n1}\n--- }\n", "line 3: did not find expected node content"},
		{"nodes:\n- name: n1\n- addresses: [172.30.0.1]\n", "line 3: nodes[1]: has no name"},
		{"nodes:\n- name: n1\n  name: n2\n", "line 3: nodes[0]: name a second time"},
		{"nodes:\n- name: n1\n  podCIDR: 10.244.1.0/24\n", `line 3: nodes[0]: unknown key "podCIDR" (known: name, addresses, podCIDRs, zone, labels)`},
		{"nodes:\n- name: n1\n  [a]: b\n", `line 3: nodes[0]: unknown key "" (known: name, addresses, podCIDRs, zone, labels)`},
		{"nodes:\n- name: 17\n", `line 2: nodes[0]: name must be a text: write it in quotes, "17"`},
		{"nodes:\n- name: true\n", `line 2: nodes[0]: name must be a text: write it in quotes, "true"`},
		{"nodes:\n- name: [n1]\n", "line 2: nodes[0]: name must be a text, not a list"},
		{"nodes:\n- name: ''\n", `line 2: nodes[0]: name "" must be 1 to 253 letters, digits, - and .`},
		{"nodes:\n- name: 'n 1'\n", `line 2: nodes[0]: name "n 1" must be 1 to 253 letters, digits, - and .`},
		{"nodes:\n- name: n1\n- name: n2\n- name: n1\n", "line 4: node n1: the name is that of the node in line 2"},
		{"nodes:\n- name: n1\n  addresses: 172.30.0.1\n", `line 3: node n1: addresses must be a list, not "172.30.0.1"`},
		{"nodes:\n- name: n1\n  addresses:\n  - 172.30.0.1\n  - 172.30.0.256\n", `line 5: node n1: addresses[1] "172.30.0.256" is not an IP address`},
		{"nodes:\n- name: n1\n  addresses: [127.0.0.1]\n", `line 3: node n1: addresses[0] "127.0.0.1" is a loopback address`},
		{"nodes:\n- name: n1\n  addresses: [fe80::1%eth0]\n", `line 3: node n1: addresses[0] "fe80::1%eth0" has a zone, which means nothing on another node`},
		{"nodes:\n- name: n1\n  addresses: [{a: b}]\n", "line 3: node n1: addresses[0] must be a text, not a mapping"},
		{"nodes:\n- name: n1\n  addresses:\n  - fd00:30::\n", `line 4: node n1: addresses[0] must be written in quotes, "fd00:30::": YAML takes a colon at the end for a mapping`},
		{"nodes:\n- name: n1\n  zone: 1\n", `line 3: node n1: zone must be a text, not "1"`},
		{"nodes:\n- name: n1\n  zone: [a]\n", "line 3: node n1: zone must be a text, not a list"},
		{"nodes:\n- name: n1\n  zone: a b\n", `line 3: node n1: zone "a b" must be 1 to 63 letters, digits, -, _ and .`},
		{"nodes: }\n", "line 1: did not find expected node content"},
		{"nodes:\n- name: n1\n podCIDRs: []\n", "line 3: did not find expected key"},
		{"nodes:\n- name: n1\n  podCIDRs: [10.244.1.0]\n", `line 3: node n1: podCIDRs[0] "10.244.1.0" is not a prefix such as 10.244.1.0/24`},
		{"nodes:\n- name: n1\n  podCIDRs: [10.244.1.0/33]\n", `line 3: node n1: podCIDRs[0] "10.244.1.0/33" is not a prefix such as 10.244.1.0/24`},
		{"nodes:\n- name: n1\n  podCIDRs: ['fd00::/64', ~]\n", `line 3: node n1: podCIDRs[1] "~" is not a prefix such as 10.244.1.0/24`},
		{"nodes:\n- name: n1\n  podCIDRs:\n  - 10.244.1.7/24\n", `line 4: node n1: podCIDRs[0] "10.244.1.7/24" has host bits set: 10.244.1.0/24 was probably meant`},
		{"nodes:\n- &a {name: n1}\n- *a\n", "line 3: nodes[1] must be a mapping with name, addresses, podCIDRs, zone, labels, not the alias *a (write out what it stands for)"},
		{"nodes: &a\n- *a\n", "line 2: nodes[0] must be a mapping with name, addresses, podCIDRs, zone, labels, not the alias *a (write out what it stands for)"},
		{"nodes:\n- *a\n", "line 2: unknown anchor 'a' referenced"},
		{"nodes:\n- <<: {name: n1}\n", `line 2: nodes[0]: unknown key "<<" (known: name, addresses, podCIDRs, zone, labels)`},
	} {
		nodes, err := parseNodes([]byte(test.text))
		switch {
		case err == nil:
			t.Errorf("%q: accepted as\n%s", test.text, textOf(nodes, nil))
		case err.Error() != test.want && !strings.HasPrefix(err.Error(), test.want+": "):
			t.Errorf("%q:\ngot  %s\nwant %s", test.text, err, test.want)
		}
	}
}

// fileOf writes nodes as a file of the given style.
func fileOf(nodes []Node, flow bool) []byte {
	var b strings.Builder
	b.WriteString("nodes:\n")
	for _, n := range nodes {
		if flow {
			fmt.Fprintf(&b, "- {name: %s, addresses: [", n.Name)
			for i, a := range n.Addresses {
				fmt.Fprintf(&b, "%.*s%q", 2*min(i, 1), ", ", a)
			}
			b.WriteString("], podCIDRs: [")
			for i, p := range n.PodCIDRs {
				fmt.Fprintf(&b, "%.*s%q", 2*min(i, 1), ", ", p)
			}
			b.WriteString("]}\n")
			continue
		}
		fmt.Fprintf(&b, "- name: %s\n  addresses:\n", n.Name)
		for _, a := range n.Addresses {
			fmt.Fprintf(&b, "  - %q\n", a)
		}
		b.WriteString("  podCIDRs:\n")
		for _, p := range n.PodCIDRs {
			fmt.Fprintf(&b, "  - %s\n", p)
		}
	}
	return []byte(b.String())
}

// Both styles of a large file hold the same nodes.
func TestParseNodesMany(t *testing.T) {
	nodes := cluster(1000)
	for _, flow := range []bool{false, true} {
		parsed, err := parseNodes(fileOf(nodes, flow))
		if err != nil {
			t.Fatal(err)
		}
		accepted, refused := Judge("", nodes)
		if got, want := textOf(parsed, nil), textOf(accepted, refused); got != want {
			t.Errorf("flow %v: got\n%.500s\nwant\n%.500s", flow, got, want)
		}
	}
}

// The parser never panics, and what it accepts Judge takes.
func FuzzParseNodes(f *testing.F) {
	for _, nodes := range [][]Node{cluster(1), cluster(3)} {
		f.Add(fileOf(nodes, true))
		f.Add(fileOf(nodes, false))
	}
	f.Add([]byte("nodes: &a\n- *a\n"))
	f.Add([]byte(`{"nodes": [{"name": "n1", "addresses": ["::ffff:1.2.3.4"], "podCIDRs": ["::/0", "10.0.0.1/8"]}]}`))
	f.Add([]byte("? [a]\n: |\n b\n...\n--- !!binary x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		nodes, err := parseNodes(text)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		if len(nodes) == 0 {
			t.Error("zero nodes are accepted")
		}
		accepted, refused := Judge(nodes[0].Name, nodes)
		if len(accepted) != len(nodes) {
			t.Errorf("%d of %d nodes are accepted: %v", len(accepted), len(nodes), refused)
		}
	})
}

func BenchmarkParseNodes(b *testing.B) {
	for _, flow := range []bool{false, true} {
		text := fileOf(cluster(5000), flow)
		b.Run(fmt.Sprintf("flow=%v", flow), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := parseNodes(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
