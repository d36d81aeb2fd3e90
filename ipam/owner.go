package ipam

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what an owner may be called. They are far above what a container
// runtime uses, and low enough for an owner and its addresses to fit into the
// target text of a symbolic link.
const (
	maxContainerID = 1024
	maxInterface   = 255
	maxSandboxPath = 2048
)

// Owner is who holds addresses: one interface of one container.
type Owner struct {
	// ContainerID is the id that the runtime gave the container, 1 to 1,024
	// bytes without slashes and control characters. White space around it is
	// ignored, as host-local does.
	ContainerID string
	// Interface is the name of the interface in the container, up to 255
	// bytes without slashes, white space and control characters. Old versions
	// of host-local did not record it: the owner of such a record has none.
	Interface string
}

// String names the owner in errors.
func (o Owner) String() string {
	if o.Interface == "" {
		return "container " + o.ContainerID
	}
	return "container " + o.ContainerID + " interface " + o.Interface
}

// Sandbox identifies the network namespace that the addresses are used in.
// The zero value means that it is not known.
type Sandbox struct {
	// Path is where the namespace could be found, up to 2,048 bytes.
	Path string
	// Device and Inode identify the namespace for as long as it lives,
	// whatever happens to the path.
	Device, Inode uint64
}

// canonical returns the owner as it is recorded, or says why it cannot be.
func (o Owner) canonical() (Owner, error) {
	o.ContainerID = strings.TrimSpace(o.ContainerID)
	switch {
	case o.ContainerID == "":
		return o, errors.New("the container id is empty")
	case len(o.ContainerID) > maxContainerID:
		return o, fmt.Errorf("the container id %.32q… is %d bytes long, more than %d", o.ContainerID, len(o.ContainerID), maxContainerID)
	case !plain(o.ContainerID) || strings.Contains(o.ContainerID, "/"):
		return o, fmt.Errorf("the container id %q contains a slash or a control character", o.ContainerID)
	case len(o.Interface) > maxInterface:
		return o, fmt.Errorf("the interface name %.32q… is %d bytes long, more than %d", o.Interface, len(o.Interface), maxInterface)
	case !plain(o.Interface) || strings.ContainsAny(o.Interface, "/ "):
		return o, fmt.Errorf("the interface name %q contains a slash, white space or a control character", o.Interface)
	}
	return o, nil
}

func (s Sandbox) validate() error {
	switch {
	case len(s.Path) > maxSandboxPath:
		return fmt.Errorf("the sandbox path %.32q… is %d bytes long, more than %d", s.Path, len(s.Path), maxSandboxPath)
	case strings.ContainsAny(s.Path, "\n\x00"):
		return fmt.Errorf("the sandbox path %q contains a line feed or a zero byte", s.Path)
	}
	return nil
}

// plain says whether text is free of control characters and is UTF-8.
func plain(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0xa0 || r == 0x2028 || r == 0x2029 {
			return false
		}
	}
	return true
}

// lineBreak separates container id and interface name in a record.
const lineBreak = "\r\n"

// recordText returns the content of a record of o.
func recordText(o Owner) string {
	return o.ContainerID + lineBreak + o.Interface
}

// maxRecord bounds how much of a record is read.
const maxRecord = maxContainerID + maxInterface + 64

// parseRecord returns the owner that the content of a record names. It
// reports false for what no writer that finished can have left behind:
// nothing, or something that is no text of one or two lines.
func parseRecord(content []byte) (Owner, bool) {
	text := strings.TrimSpace(string(content))
	id, ifname, _ := strings.Cut(text, "\n")
	o := Owner{ContainerID: strings.TrimSpace(id), Interface: strings.TrimSpace(ifname)}
	recorded, err := o.canonical()
	return recorded, err == nil
}
