package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/namespace"
)

// Netlink makes, compares and removes objects in the running kernel, through
// one rtnetlink socket in each of an attachment's namespaces.
type Netlink struct {
	// Step is called before every change, with its command; an error takes
	// the place of the change. Tests make changes fail with it.
	Step func(command string) error
	// Sysctls is where sysctls are files, "/proc/sys" where it is empty. In a
	// container that may be read-only, and the machine's be mounted elsewhere.
	Sysctls string

	pod     *namespace.Namespace
	sockets [2]*socket
	indices [2]map[string]int
}

// NewNetlink works in the caller's namespace as the host side and in pod as
// the pod side. Without a pod (nil) every operation on that side fails.
func NewNetlink(pod *namespace.Namespace) (*Netlink, error) {
	n := &Netlink{pod: pod, indices: [2]map[string]int{{}, {}}}
	var err error
	if n.sockets[Host], err = openSocket(nil, usualBytes); err != nil {
		return nil, err
	}
	if pod == nil {
		return n, nil
	}
	if n.sockets[Pod], err = openSocket(pod, usualBytes); err != nil {
		n.Close()
		return nil, fmt.Errorf("in namespace %s: %w", pod.Path, err)
	}
	return n, nil
}

// Close closes the sockets; the pod's namespace stays open.
func (n *Netlink) Close() {
	for _, s := range n.sockets {
		if s != nil {
			s.Close()
		}
	}
}

// Difference is what [Netlink.Inspect] reports: the kernel was asked, and what
// it holds is not the object.
type Difference struct {
	Object Object
	Found  string // what is there instead, in words
}

func (d *Difference) Error() string { return fmt.Sprintf("%s (expected: %s)", d.Found, d.Object) }

// Make creates the object. It fails with [ErrExists] where something with its
// name or key is there already, whether equal or not.
func (n *Netlink) Make(object Object) error {
	if err := n.step(object); err != nil {
		return fmt.Errorf("%s: %w", object, err)
	}
	var err error
	switch o := object.(type) {
	case Pair:
		err = n.makePair(o)
	case Settings:
		err = n.applySettings(o)
	case Up:
		err = n.bringUp(o)
	case Shaper:
		err = n.shape(o)
	case Clsact:
		err = n.makeClsact(o)
	case Running:
		err = n.awaitRunning(o)
	case Reachable:
		err = n.makeReachable(o)
	case Address:
		err = n.addAddress(o)
	case Neighbour:
		err = n.addNeighbour(o)
	case Patience:
		err = n.bePatient(o)
	case Route:
		err = n.addRoute(o)
	case Answered:
		err = n.answer(o)
	case Forwarding:
		err = n.enableForwarding(o)
	default:
		err = errUnknown(object)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", object, err)
	}
	return nil
}

// Remove deletes the object. It is no error where the object, or the interface
// that it depends on, is gone already. Settings, state and node-wide switches
// have no inverse of their own and end with their interface, or stay.
func (n *Netlink) Remove(object Object) error {
	if err := n.step(object); err != nil {
		return fmt.Errorf("undoing %s: %w", object, err)
	}
	var err error
	switch o := object.(type) {
	case Pair:
		err = n.removePair(o)
	case Address:
		err = n.removeAddress(o)
	case Neighbour:
		err = n.removeNeighbour(o)
	case Route:
		err = n.removeRoute(o)
	case Settings, Shaper, Clsact, Up, Running, Reachable, Patience, Answered, Forwarding:
	default:
		err = errUnknown(object)
	}
	if err != nil && !isGone(err) {
		return fmt.Errorf("undoing %s: %w", object, err)
	}
	return nil
}

// Inspect compares the object with the kernel: nil where it is as stated, a
// [*Difference] where it is missing or otherwise, another error where the
// kernel could not be asked.
func (n *Netlink) Inspect(object Object) error {
	var found string
	var err error
	switch o := object.(type) {
	case Pair:
		found, err = n.inspectPair(o)
	case Settings:
		found, err = n.inspectSettings(o)
	case Up:
		found, err = n.inspectUp(o)
	case Shaper:
		found, err = n.inspectShaper(o)
	case Running:
		found, err = n.inspectRunning(o)
	case Reachable:
		found, err = n.inspectReachable(o)
	case Address:
		found, err = n.inspectAddress(o)
	case Neighbour:
		found, err = n.inspectNeighbour(o)
	case Patience, Clsact:
		// Not worth a complaint: what changed it costs a packet now and then.
	case Route:
		found, err = n.inspectRoute(o)
	case Answered:
		found, err = n.inspectAnswered(o)
	case Forwarding:
		found, err = n.inspectForwarding(o)
	default:
		err = errUnknown(object)
	}
	if err != nil {
		return fmt.Errorf("inspecting %s: %w", object, err)
	}
	if found != "" {
		return &Difference{Object: object, Found: found}
	}
	return nil
}

func (n *Netlink) step(object Object) error {
	if n.Step == nil {
		return nil
	}
	return n.Step(object.String())
}

// ErrExists says that the kernel already has an object of that name or key.
var ErrExists = unix.EEXIST

func errUnknown(object Object) error { return fmt.Errorf("unknown kind of object %T", object) }

// isGone reports whether an error of a deletion says that there was nothing.
func isGone(err error) bool {
	for _, errno := range []error{unix.ENODEV, unix.ESRCH, unix.ENOENT, unix.EADDRNOTAVAIL, unix.ENXIO} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func isUnreachable(err error) bool {
	for _, errno := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// isAbsentFamily reports whether the kernel has no such address family.
func isAbsentFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// socket returns the side's netlink socket.
func (n *Netlink) socket(side Side) (*socket, error) {
	if n.sockets[side] == nil {
		return nil, fmt.Errorf("no namespace of the %s given", side)
	}
	return n.sockets[side], nil
}

// on returns the side's socket and an interface's index there.
func (n *Netlink) on(side Side, link string) (*socket, int, error) {
	s, err := n.socket(side)
	if err != nil {
		return nil, 0, err
	}
	if index, known := n.indices[side][link]; known {
		return s, index, nil
	}
	l, err := s.link(link)
	if err != nil {
		return nil, 0, err
	}
	n.indices[side][link] = l.Index
	return s, l.Index, nil
}
