package requirements

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Running is the kernel that runs, as the network namespace of the calling
// thread sees it. It is asked in ways that leave nothing behind:
//
//   - a module that is loaded is there;
//   - an interface of a kind is asked for with an address that no such interface
//     can have: where the kind is there, that is what the kernel complains about;
//   - nftables' objects are sent in a batch without its end, which the kernel
//     examines message by message, and then throws away. They are in a table
//     that is switched off, so no packet meets them meanwhile;
//   - what queues packets is asked for without the options that it cannot be without;
//     and what sorts them needs such a queue, so it is asked for in a network namespace
//     of its own, which ends with the question.
//
// In each case the kernel loads what it is asked for, if it has a module of it.
type Running struct {
	// Modules is where loaded modules are directories; "" is /sys/module.
	Modules string
	// Brief leaves out what takes a transaction of nftables or a network namespace,
	// which end only when no packet can be using what they threw away: tens of
	// milliseconds. Such features are taken to be there.
	Brief bool
}

// Release implements [Kernel].
func (Running) Release() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "?"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// HasNftables reports whether the kernel has nf_tables, so that there can be
// tables.
func (k Running) HasNftables() bool {
	return k.Probe(slices.DeleteFunc(slices.Clone(features()), func(f Feature) bool { return f.Key != keyNfTables }))[0] == nil
}

// probe is a way to ask for a feature.
type probe interface{ ask() error }

// Probe implements [Kernel].
func (k Running) Probe(all []Feature) []error {
	results := make([]error, len(all))
	var b batch
	for i, f := range all {
		switch p := f.probe.(type) {
		case nil:
			results[i] = judged(k.Release(), f)
		case nftablesProbe:
			if !k.Brief && !k.loaded(f.Module) {
				b.add(i, p)
			}
		case filter:
			if !k.Brief && !k.loaded(f.Module) {
				results[i] = p.ask()
			}
		case alwaysAsked:
			results[i] = p.ask()
		default:
			if !k.loaded(f.Module) {
				results[i] = p.ask()
			}
		}
	}
	b.send(results)
	return results
}

// judged goes by the number of a kernel that cannot be asked.
func judged(release string, f Feature) error {
	if v, ok := ParseRelease(release); ok && v.Less(f.Since) {
		return ErrMissing
	}
	return nil
}

// loaded reports whether a module is known to be there. Of those that are built
// in only some are shown, so no is no answer.
func (k Running) loaded(module string) bool {
	if module == "" {
		return false
	}
	directory := k.Modules
	if directory == "" {
		directory = "/sys/module"
	}
	_, err := os.Stat(filepath.Join(directory, module))
	return err == nil
}

// alwaysAsked is a probe of something that a loaded module can lack.
type alwaysAsked interface {
	probe
	alwaysAsked()
}

// protocolFamily asks for a socket. Unlike a message of rtnetlink, that makes
// the kernel load the family's module.
type protocolFamily int

func (protocolFamily) alwaysAsked() {} // ipv6.disable=1 leaves the module loaded

func (p protocolFamily) ask() error {
	fd, err := unix.Socket(int(p), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return refused(err)
	}
	return unix.Close(fd)
}

// refused makes [ErrMissing] of errors by which a kernel says that it does not
// know what it is asked for; a lack of rights or memory is none.
func refused(err error) error {
	for _, unknown := range []error{
		unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ENOENT, unix.EINVAL, unix.ENOPROTOOPT, unix.ENODEV,
	} {
		if errors.Is(err, unknown) {
			return fmt.Errorf("%w: %w", ErrMissing, err)
		}
	}
	return err
}

// linkKind asks for an interface of a kind, with an address of one byte.
type linkKind string

func (k linkKind) ask() error {
	s, err := open(unix.NETLINK_ROUTE)
	if err != nil {
		return refused(err)
	}
	defer s.close()
	body := make([]byte, unix.SizeofIfInfomsg)
	body = append(body, attribute(unix.IFLA_ADDRESS, []byte{0})...)
	const infoKind = 1 // IFLA_INFO_KIND
	body = append(body, attribute(unix.IFLA_LINKINFO, attribute(infoKind, []byte(k)))...)
	err = s.execute(unix.RTM_NEWLINK, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, body)
	if errors.Is(err, unix.EINVAL) {
		return nil // the address: the kind is known
	}
	return refused(err)
}

// routingRules asks for the rules of a family.
type routingRules byte

func (f routingRules) ask() error {
	s, err := open(unix.NETLINK_ROUTE)
	if err != nil {
		return refused(err)
	}
	defer s.close()
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = byte(f)
	return refused(s.execute(unix.RTM_GETRULE, unix.NLM_F_DUMP, body))
}

// subsystem asks one of netfilter's for something harmless.
type subsystem struct{ number, message int }

func (p subsystem) ask() error {
	s, err := open(unix.NETLINK_NETFILTER)
	if err != nil {
		return refused(err)
	}
	defer s.close()
	return refused(s.execute(uint16(p.number<<8|p.message), 0, make([]byte, sizeofGenericMessage)))
}

// tracking asks for conntrack's netlink, where connections are tracked: elsewhere
// nobody needs it.
type tracking struct{}

func (tracking) ask() error {
	if _, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_count"); err != nil {
		return nil
	}
	const statistics = 5 // IPCTNL_MSG_CT_GET_STATS
	return subsystem{unix.NFNL_SUBSYS_CTNETLINK, statistics}.ask()
}
