// Package requirements knows what flatnet needs of the kernel beyond what every
// Linux has: which part needs what, since which version it is there, which
// module holds it, and what becomes of the part without it. docs/kernel.md is
// the same for people.
//
// A kernel is asked and not judged by its number, wherever it can be asked: those
// of enterprise distributions have much that is newer than their number. To ask
// changes nothing that anybody could see, except that the kernel loads a module
// that it has and that was not in use yet (see [Running]).
package requirements

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Part is a part of flatnet that works or not, by itself.
type Part string

const (
	Pods         Part = "pods"             // pods' interfaces
	Netkit       Part = "netkit"           // pods' interfaces in the place of veth
	IPv6         Part = "IPv6"             // pods' IPv6 addresses
	Overlay      Part = "overlay"          // VXLAN to other nodes
	OverlayNodes Part = "overlay to nodes" // from pods to other nodes' own addresses, through the overlay
	Masquerade   Part = "masquerade"       // the agent's
	IPMasq       Part = "ipMasq"           // the plugin's own masquerading
	Guard4       Part = "guard of IPv4"    // of pods' source addresses where rp_filter does not check them
	Guard6       Part = "guard of IPv6"    // of pods' source addresses
	Services     Part = "Services"
	Services6    Part = "Services in IPv6"
	Policies     Part = "policies"
	HostPorts    Part = "host ports"        // ports of the node that lead to pods
	Rates        Part = "rates"             // that pods' interfaces are held to
	NetworkRates Part = "rates of networks" // the same, for some of the traffic
	Forgetting   Part = "conntrack entries" // of pods that are gone
)

// without says what becomes of a part whose requirement is missing.
func without(p Part) string {
	switch p {
	case Pods:
		return "no pod can be attached"
	case Netkit:
		return "pods whose interfaces are to be netkit are refused"
	case IPv6:
		return "pods get no IPv6 addresses from flatnetd, and the plugin refuses those that are to have one"
	case Overlay:
		return "nodes that need the overlay are not reached"
	case OverlayNodes:
		return "pods send from their own addresses to other nodes, as with --overlay-nodes=false"
	case Policies:
		return "no policy is in force"
	case Masquerade:
		return "what pods send out of the cluster keeps their addresses"
	case IPMasq:
		return "pods with ipMasq are refused"
	case Guard4:
		return "pods can send from IPv4 addresses that are not theirs where net.ipv4.conf.all.rp_filter is 2"
	case Guard6:
		return "pods can send from IPv6 addresses that are not theirs"
	case Services, Services6:
		return "flatnetd balances no Services"
	case HostPorts:
		return "pods with ports of the node are refused"
	case Rates:
		return "pods with a rate are refused"
	case NetworkRates:
		return "pods with a rate and shapedSubnets or unshapedSubnets are refused"
	case Forgetting:
		return "a pod can meet the connections of an earlier holder of its address"
	}
	return ""
}

// Version is a version of Linux.
type Version struct{ Major, Minor int }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Less reports whether v is older than o.
func (v Version) Less(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

// Feature is something that a kernel has or has not.
type Feature struct {
	Name   string  // as people know it
	Key    string  // for machines: that of the module, where there is one
	Module string  // that holds it; "" where it is in no module of its own
	Config string  // the option that builds it
	Since  Version // of Linux
	Parts  []Part  // that need it
	// Instead is what to do without it, where that is a choice.
	Instead string
	// Beneath is the key of the feature without which this one cannot be.
	Beneath string
	probe   probe // nil: the version decides
}

// Kernel answers which features it has.
type Kernel interface {
	// Release is what `uname -r` prints.
	Release() string
	// Probe returns for each feature nil where the kernel has it, [ErrMissing]
	// where it has not, or why it could not be asked.
	Probe([]Feature) []error
}

// ErrMissing says that the kernel does not have a feature.
var ErrMissing = errors.New("not in this kernel")

// Report is what a kernel lacks of what was asked for.
type Report struct {
	Release string
	Missing []Missing
	// Present are the features that it has.
	Present []Feature
	// Unknown are the reasons why it could not be asked, each once.
	Unknown []error
	lacking map[Part]bool
}

// Missing is a feature that the kernel does not have.
type Missing struct {
	Feature
	Release string
	// Affected are the parts that were asked for and need it.
	Affected []Part
}

// Check asks the kernel for all that the parts need.
func Check(k Kernel, parts ...Part) Report {
	r := Report{Release: k.Release(), lacking: map[Part]bool{}}
	absent := map[string]bool{}
	for _, round := range rounds(parts) {
		round = slices.DeleteFunc(round, func(f Feature) bool { return absent[f.Beneath] })
		for i, err := range k.Probe(round) {
			f := round[i]
			switch {
			case err == nil:
				r.Present = append(r.Present, f)
			case errors.Is(err, ErrMissing):
				absent[f.Key] = true
				r.miss(f, parts)
			default:
				r.cannotTell(f, err)
			}
		}
	}
	return r
}

// rounds are the features that the parts need: first those that stand alone,
// then those that are worth a question only where these are there.
func rounds(parts []Part) [2][]Feature {
	var all [2][]Feature
	for _, f := range features() {
		if !slices.ContainsFunc(f.Parts, func(p Part) bool { return slices.Contains(parts, p) }) {
			continue
		}
		if f.Beneath == "" {
			all[0] = append(all[0], f)
		} else {
			all[1] = append(all[1], f)
		}
	}
	return all
}

func (r *Report) miss(f Feature, parts []Part) {
	m := Missing{Feature: f, Release: r.Release}
	for _, p := range parts {
		// What rests on the feature needs it as well.
		if slices.Contains(f.Parts, p) && !slices.Contains(m.Affected, p) {
			m.Affected = append(m.Affected, p)
			r.lacking[p] = true
		}
	}
	r.Missing = append(r.Missing, m)
}

func (r *Report) cannotTell(f Feature, err error) {
	err = fmt.Errorf("asking the kernel for %s: %w", f.Name, err)
	if !slices.ContainsFunc(r.Unknown, func(e error) bool { return errors.Unwrap(e).Error() == errors.Unwrap(err).Error() }) {
		r.Unknown = append(r.Unknown, err)
	}
}

// Lacks reports whether a part cannot work. What could not be asked is taken to
// be there: the kernel will say what it does not like.
func (r Report) Lacks(p Part) bool { return r.lacking[p] }

// Of returns what is missing of what a part needs.
func (r Report) Of(p Part) []Missing {
	return slices.DeleteFunc(slices.Clone(r.Missing), func(m Missing) bool { return !slices.Contains(m.Affected, p) })
}

// IsNftables reports whether all of nf_tables is missing.
func (m Missing) IsNftables() bool { return m.Key == keyNfTables }

// What names what is missing, with where it would be.
func (m Missing) What() string {
	where := m.Module
	if where == "" {
		where = m.Config
	}
	if where == "" || where == m.Name {
		return m.Name
	}
	return m.Name + " (" + where + ")"
}

// String is the whole sentence: which kernel, what it lacks, what follows.
func (m Missing) String() string {
	text := fmt.Sprintf("kernel %s: %s is missing", m.Release, m.What())
	var consequences []string
	for _, p := range m.Affected {
		if c := without(p); c != "" && !slices.Contains(consequences, c) {
			consequences = append(consequences, c)
		}
	}
	if len(consequences) > 0 {
		text += ": " + strings.Join(consequences, "; ")
	}
	return text
}

// Hint says what to do.
func (m Missing) Hint() string {
	var ways []string
	if m.Module != "" {
		ways = append(ways, fmt.Sprintf("`modprobe %s` on the node shows why it cannot be loaded (a container cannot load it)", m.Module))
	}
	if m.Config != "" {
		ways = append(ways, fmt.Sprintf("the kernel needs CONFIG_%s", m.Config))
	}
	if m.Key == keyIPv6 {
		ways = []string{"boot without ipv6.disable=1, with a kernel that has CONFIG_IPV6, or use no IPv6 podCIDRs"}
	}
	if release, ok := ParseRelease(m.Release); ok && release.Less(m.Since) {
		ways = append(ways, fmt.Sprintf("Linux %s and later have it", m.Since))
	}
	if m.Instead != "" {
		ways = append(ways, m.Instead)
	}
	return strings.Join(ways, "; ")
}

// Sentence joins what is missing into one text for an error, with what to do;
// "" where nothing is.
func Sentence(all []Missing) string {
	var texts []string
	for _, m := range all {
		texts = append(texts, fmt.Sprintf("%s (%s)", m, m.Hint()))
	}
	return strings.Join(texts, "; ")
}

// ParseRelease reads the beginning of what `uname -r` prints.
func ParseRelease(release string) (v Version, ok bool) {
	n, err := fmt.Sscanf(release, "%d.%d", &v.Major, &v.Minor)
	return v, n == 2 && err == nil
}
