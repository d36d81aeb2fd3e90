package policy

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// group is the set of the addresses of all pods that a selector chooses, wherever they
// are, or of these with the ports that a name means. All rules that name the same
// selector share it. It is a set of the kernel's of each family.
type group struct {
	key      groupKey
	selector Selector
	names    [len(families)]string // of its sets
	elements [len(families)]keySet
	of       map[netip.Addr][]string // keys of an address
}

// groupKey says what a group holds; it is the same for selectors that are written
// alike.
type groupKey struct {
	namespace, namespaces, pods string
	port                        string // a name; "" for addresses alone
	protocol                    Protocol
}

// groupChange is what has come and gone since the kernel was told.
type groupChange struct {
	added, deleted map[string]family
}

// everything chooses all pods.
var everything = Selector{Namespaces: labels.Everything(), Pods: labels.Everything()}

func keyOf(s Selector, port string, protocol Protocol) groupKey {
	k := groupKey{namespace: s.Namespace, pods: s.Pods.String(), port: port, protocol: protocol}
	if s.Namespace == "" {
		k.namespaces = s.Namespaces.String()
	}
	return k
}

// String is what the group holds, for people.
func (k groupKey) String() string {
	text := "pods"
	if k.pods != "" {
		text += " with " + k.pods
	}
	switch {
	case k.namespace != "":
		text += " in " + k.namespace
	case k.namespaces != "":
		text += " in namespaces with " + k.namespaces
	}
	if k.port != "" {
		text += fmt.Sprintf(", port %s/%s", k.port, k.protocol)
	}
	return text
}

// name is that of the group's set of a family. Its end makes it the only one, what is
// before tells people what it is.
func (k groupKey) name(f family) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%q", []any{k.namespace, k.namespaces, k.pods, k.port, uint8(k.protocol)})
	const longest = 60
	words := word(strings.Join([]string{k.namespace, k.namespaces, k.pods, k.port}, " "))
	if len(words) > longest {
		words = words[:longest]
	}
	if words == "" {
		words = "all"
	}
	return fmt.Sprintf("pods%s-%s-%016x", f.suffix(), words, h.Sum64())
}

// word makes a name of nft's of a text.
func word(s string) string {
	parts := strings.FieldsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
	})
	return strings.Join(parts, "-")
}

// set declares the group's set of a family.
func (g *group) set(f family) nft.Set {
	s := nft.Set{Name: g.names[f], Type: f.addressType(), Elements: g.elements[f]}
	if g.key.port != "" {
		s.Type += " . inet_service"
	}
	return s
}

// use returns the group of a selector, and fills it where nobody has used it before.
func (w *world) use(s Selector, port string, protocol Protocol, used map[groupKey]*group) *group {
	key := keyOf(s, port, protocol)
	if g := used[key]; g != nil {
		return g
	}
	g := w.groups[key]
	if g == nil {
		g = &group{key: key, selector: s, of: map[netip.Addr][]string{}}
		for i, f := range families {
			g.names[i], g.elements[i] = key.name(f), map[string]struct{}{}
		}
		w.groups[key] = g
		w.fill(g)
		// The set is new to the kernel: it is written whole, and not by what has changed.
		delete(w.changed, key)
	}
	used[key] = g
	return g
}

// fill finds all that a new group holds.
func (w *world) fill(g *group) {
	add := func(a netip.Addr) {
		if owner := w.owner(a); owner != nil {
			w.regroup(g, a, owner)
		}
	}
	consider := func(pods map[Name]*Pod) {
		for _, p := range pods {
			if !w.matches(g.selector, p) {
				continue
			}
			for _, a := range p.Addresses {
				add(a)
			}
			for _, a := range w.attached[p.Name].Addresses {
				add(a)
			}
		}
	}
	if g.selector.Namespace != "" {
		consider(w.ofSpace[g.selector.Namespace])
		return
	}
	for name, pods := range w.ofSpace {
		if n := w.namespaces[name]; n != nil && g.selector.Namespaces.Matches(n.Labels) {
			consider(pods)
		}
	}
}

// regroup makes the group hold what an address means to it, now that a pod has it.
func (w *world) regroup(g *group, a netip.Addr, owner *Pod) {
	var want []string
	if owner != nil && w.matches(g.selector, owner) {
		want = g.keys(a, owner)
	}
	have := g.of[a]
	if slices.Equal(have, want) {
		return
	}
	f := familyOf(a)
	c := w.changed[g.key]
	if c.added == nil {
		c = groupChange{map[string]family{}, map[string]family{}}
		w.changed[g.key] = c
	}
	for _, key := range have {
		if slices.Contains(want, key) {
			continue
		}
		delete(g.elements[f], key)
		if _, is := c.added[key]; is {
			delete(c.added, key)
		} else {
			c.deleted[key] = f
		}
	}
	for _, key := range want {
		if slices.Contains(have, key) {
			continue
		}
		g.elements[f][key] = struct{}{}
		if _, is := c.deleted[key]; is {
			delete(c.deleted, key)
		} else {
			c.added[key] = f
		}
	}
	if len(want) == 0 {
		delete(g.of, a)
	} else {
		g.of[a] = want
	}
}

// keys are those that an address of a pod has in the group.
func (g *group) keys(a netip.Addr, p *Pod) []string {
	if g.key.port == "" {
		return []string{string(nft.Key(nil).Address(a))}
	}
	var keys []string
	for _, port := range p.ports(g.key.port, g.key.protocol) {
		keys = append(keys, string(nft.Key(nil).Address(a).Port(port)))
	}
	return keys
}

// ports are the numbers that a name means at a pod, in order.
func (p *Pod) ports(name string, protocol Protocol) (all []uint16) {
	for _, n := range p.Ports {
		if n.Name == name && n.Protocol == protocol {
			all = append(all, n.Port)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// holds reports whether the group has an address, with a port where it is one of ports.
func (g *group) holds(a netip.Addr, port uint16) bool {
	k := nft.Key(nil).Address(a)
	if g.key.port != "" {
		k = k.Port(port)
	}
	_, is := g.elements[familyOf(a)][string(k)]
	return is
}
