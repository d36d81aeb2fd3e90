// Package host sets and keeps what a flat network needs of the machine around
// it, and reports what was not so: forwarding, reverse path filters, the size of
// the neighbour tables, a FORWARD chain that drops by policy, and network
// managers that would configure interfaces or remove routes of others.
//
// What is right already is not written: writing a forwarding sysctl takes the
// kernel's lock of all interfaces, and every write is seen by those who watch.
// Everything made here carries a mark (the comment of a rule, the name of a
// file), and nothing else is changed or removed.
package host

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Needs is what a node's pods ask of it.
type Needs struct {
	IPv4, IPv6 bool     // families that pods use
	Underlay   []string // interfaces that carry node addresses, for example "eth0"
	Tunnel     string   // "flatnet.vx", or "" where there is no tunnel
	// OwnPodCIDRs are the prefixes of this node's pods, whose traffic a FORWARD
	// chain has to let pass.
	OwnPodCIDRs []netip.Prefix
	// Pods and Nodes are how many there are to talk to, for the size of the
	// neighbour tables.
	Pods, Nodes int
	// Services says that traffic to Services is translated on the node.
	Services bool
	// FastPath says that packets of established connections go past connection tracking.
	FastPath bool
	// HostInterfacePrefix begins the names of pods' host interfaces, before 11
	// hexadecimal digits: "veth".
	HostInterfacePrefix string
}

// Finding is one thing that was not as needed.
type Finding struct {
	Object   string // "sysctl net.ipv4.ip_forward", "chain ip filter FORWARD", …
	Found    string // for example "0", or "missing"
	Wanted   string // for example "1"
	Repaired bool   // it is as wanted now
	Problem  string // why it is not, or "" where it is
	Hint     string // what to do, or what to know, for people; may be ""
	// Kind is the sort of problem that it is where it is not as wanted.
	Kind problem.Kind
	// ReadOnly says that no sysctl at all can be written, for this reason.
	ReadOnly string
}

// Keeper sets and keeps the host's settings in the network namespace of the
// calling thread. The zero value works on the machine itself. A Keeper must not
// be used by several goroutines at once.
type Keeper struct {
	// Log gets every repair. What could not be repaired is for the caller to tell
	// of: see [Problems]. Nil means no log.
	Log *slog.Logger
	// Root is the directory that holds proc/sys and run, "/" where empty.
	Root string
	// Sysctls is where sysctls are files, proc/sys below Root where it is
	// empty. In a container that is read-only as a rule, and the machine's
	// is mounted elsewhere.
	Sysctls string
	// Run executes a program and returns its standard output; where the program
	// is not installed, the error is [exec.ErrNotFound]. Nil stands for a plain
	// execution. It is called only where a chain of iptables was found to drop.
	Run func(ctx context.Context, program string, arg ...string) (string, error)
}

// Apply compares the host with the needs, changes what differs and returns what
// it found; an empty list says that all was well. What cannot be mended does not
// keep the rest from being mended.
func (k *Keeper) Apply(ctx context.Context, needs Needs) []Finding {
	findings := k.applySysctls(needs)
	findings = append(findings, k.applyForward(ctx, needs)...)
	findings = append(findings, k.applyDropIns(needs)...)
	k.report(findings)
	return findings
}

// Remove takes back the marked rules of FORWARD chains and the drop-in files.
// The sysctls stay as they are: others may rely on them by now.
func (k *Keeper) Remove(ctx context.Context) error {
	return errors.Join(k.removeForward(ctx), k.removeDropIns())
}

// sysctl is the file of a sysctl, for example of "net/ipv4/ip_forward".
func (k *Keeper) sysctl(key string) string {
	if k.Sysctls != "" {
		return filepath.Join(k.Sysctls, key)
	}
	return k.path("/proc/sys/" + key)
}

// report logs repairs.
func (k *Keeper) report(findings []Finding) {
	for _, f := range findings {
		if f.Problem == "" {
			k.log().Info("host setting repaired", "object", f.Object, "found", f.Found, "wanted", f.Wanted, "hint", f.Hint)
		}
	}
}

func (k *Keeper) log() *slog.Logger {
	if k.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return k.Log
}

// path returns where an absolute path is below the root.
func (k *Keeper) path(absolute string) string {
	return filepath.Join(cmp.Or(k.Root, "/"), absolute)
}
