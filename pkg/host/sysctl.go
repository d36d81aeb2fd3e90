package host

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Rule says which values of a sysctl are good as they are.
type Rule int

const (
	// Exactly wants the value itself.
	Exactly Rule = iota
	// AtLeast wants the value or a greater one.
	AtLeast
	// NotStrict is for rp_filter of an interface, where the kernel goes by the
	// greater one of the interface's value and that of "all": the value replaces
	// what amounts to 1 (strict); 0 (off) and 2 (loose) stay.
	NotStrict
)

// Sysctl is one setting of the kernel.
type Sysctl struct {
	Key   string // path below /proc/sys: "net/ipv4/conf/eth0/rp_filter"
	Value int
	Rule  Rule
	// Required settings are a problem where the kernel does not have them.
	// Others concern an interface that is not there, or a limit that only the
	// machine's first network namespace has.
	Required bool
}

// String returns the equivalent command, with the condition of its rule as a
// comment.
func (s Sysctl) String() string {
	command := fmt.Sprintf("sysctl -w %s=%d", s.Name(), s.Value)
	switch s.Rule {
	case AtLeast:
		return command + " # if less"
	case NotStrict:
		return command + " # if strict"
	}
	return command
}

// Name returns the key as sysctl(8) writes it: dots for slashes, and slashes for
// the dots in an interface's name.
func (s Sysctl) Name() string { return sysctlName(s.Key) }

func sysctlName(key string) string {
	return strings.NewReplacer("/", ".", ".", "/").Replace(key)
}

// needless reports whether the rule is content with what was found.
func (s Sysctl) needless(found, all int) bool {
	switch s.Rule {
	case AtLeast:
		return found >= s.Value
	case NotStrict:
		return max(found, all) != 1
	}
	return found == s.Value
}

// allKey is the key of the same setting for all interfaces.
func (s Sysctl) allKey() string {
	parts := strings.Split(s.Key, "/") // net/ipv4/conf/eth0/rp_filter
	parts[len(parts)-2] = "all"
	return strings.Join(parts, "/")
}

// applySysctls sets what differs.
func (k *Keeper) applySysctls(needs Needs) []Finding {
	var findings []Finding
	for _, s := range Sysctls(needs) {
		finding, differs := k.inspectSysctl(s)
		if !differs {
			continue
		}
		if finding.Problem == "" && s.switchesIPv6Forwarding() {
			kept, ok := k.keepAdvertisements(s, needs)
			for _, f := range kept {
				// What cannot be mended comes up again with the next interface.
				if !slices.Contains(findings, f) {
					findings = append(findings, f)
				}
			}
			if !ok {
				finding.Problem = "the node would lose the addresses and default routes that it has of router advertisements"
				finding.Hint = fmt.Sprintf("set accept_ra of these interfaces to 2, then run `%s`", s)
			}
		}
		if finding.Problem == "" {
			k.writeSysctl(s, &finding)
		}
		findings = append(findings, finding)
	}
	return findings
}

// inspectSysctl compares a setting with the kernel's.
func (k *Keeper) inspectSysctl(s Sysctl) (f Finding, differs bool) {
	f = Finding{Kind: problem.Sysctl, Object: "sysctl " + s.Name(), Wanted: strconv.Itoa(s.Value)}
	found, err := k.readSysctl(s.Key)
	switch {
	case errors.Is(err, os.ErrNotExist) && !s.Required:
		return f, false
	case errors.Is(err, os.ErrNotExist):
		f.Found, f.Problem = "missing", "the kernel has no such setting"
		f.Hint = "check that /proc/sys is mounted"
		if strings.HasPrefix(s.Key, "net/ipv6/") {
			f.Hint = "IPv6 is switched off in this kernel: boot without ipv6.disable=1, or use no IPv6 podCIDRs"
		}
		return f, true
	case err != nil:
		f.Problem = err.Error()
		f.Hint = fmt.Sprintf("check by hand: `sysctl %s`", s.Name())
		return f, true
	}
	all := 0
	if s.Rule == NotStrict {
		// Nothing stricter than the interface's own value follows from an
		// answer that is not to be had.
		all, _ = k.readSysctl(s.allKey())
	}
	if s.needless(found, all) {
		return f, false
	}
	f.Found = strconv.Itoa(found)
	switch {
	case s.Rule == AtLeast:
		f.Wanted = "at least " + f.Wanted
	case s.Rule == NotStrict && found != 1:
		f.Found += fmt.Sprintf(" (strict because of %s=%d)", sysctlName(s.allKey()), all)
	}
	return f, true
}

// writeSysctl sets a value, and says in the finding how that went.
// Equivalent to: `sysctl -w NAME=VALUE`.
func (k *Keeper) writeSysctl(s Sysctl, f *Finding) {
	// Without O_CREATE: where an interface has just gone there is nothing to
	// write, and a directory given by a test shows a mistake.
	file, err := os.OpenFile(k.sysctl(s.Key), os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString(strconv.Itoa(s.Value))
		err = errors.Join(err, file.Close())
	}
	if err == nil {
		f.Repaired = true
		return
	}
	f.Problem = err.Error()
	command := fmt.Sprintf("sysctl -w %s=%d", s.Name(), s.Value)
	var errno syscall.Errno
	if errors.As(err, &errno) && (errno == syscall.EROFS || errno.Is(os.ErrPermission)) {
		f.ReadOnly = errno.Error()
		f.Hint = fmt.Sprintf("run `%s` on the node, or let flatnetd write to /proc/sys: in a container it is read-only "+
			"unless the node's own is mounted there", command)
		return
	}
	f.Hint = fmt.Sprintf("run `%s` on the node", command)
}

func (k *Keeper) readSysctl(key string) (int, error) {
	raw, err := os.ReadFile(k.sysctl(key))
	if err != nil {
		return 0, fmt.Errorf("reading sysctl %s: %w", sysctlName(key), err)
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("reading sysctl %s: %w", sysctlName(key), err)
	}
	return value, nil
}

// IsLiberal reports whether connection tracking does not judge sequence numbers.
// Equivalent to: `sysctl net.netfilter.nf_conntrack_tcp_be_liberal`.
func (k *Keeper) IsLiberal() (bool, error) {
	value, err := k.readSysctl(BeLiberal)
	return value == 1, err
}

// RPFilterAllLoose reports whether net.ipv4.conf.all.rp_filter is 2. The kernel
// goes by the greater one of this value and an interface's own, so the strict
// check (1) of pods' interfaces, which keeps a pod from sending from an address
// that is not its own, is then none: something else has to check the source.
// Equivalent to: `sysctl net.ipv4.conf.all.rp_filter`.
func (k *Keeper) RPFilterAllLoose() (bool, error) {
	value, err := k.readSysctl("net/ipv4/conf/all/rp_filter")
	return value == 2, err
}
