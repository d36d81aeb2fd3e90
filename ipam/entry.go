package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// entryVersion begins the text of an owner's entry. Entries of another
// version are rebuilt.
const entryVersion = "1"

// maxLink is the longest target text of a symbolic link (PATH_MAX less the
// final zero byte).
const maxLink = 4095

// entry is what the index says about one owner.
type entry struct {
	owner   Owner
	sandbox Sandbox
	held    []holding

	// Of the link, not part of its text; see disk.date.
	since time.Time // when it was written
	inode uint64
}

// entry reads the entry of a file's name, and reports whether it is one.
func (d *disk) entry(name string) (e entry, ok bool) {
	text, err := d.readlink(name)
	if err != nil {
		return entry{}, false
	}
	e, ok = parseEntry(text)
	return e, ok && entryName(e.owner) == name
}

// has reports whether a record of one of the entry's addresses is its owner's:
// one without an interface name is, too, as an old version of host-local writes it.
func (e *entry) has(recorded Owner) bool {
	return recorded == e.owner || recorded == Owner{ContainerID: e.owner.ContainerID}
}

// holding is an address with the range set that it was taken from, which is
// the zero key where that is not known (a record that another program made).
type holding struct {
	addr netip.Addr
	set  setKey
}

// entryName returns where the entry of an owner is.
func entryName(o Owner) string {
	sum := sha256.Sum256([]byte(o.ContainerID + "\x00" + o.Interface))
	return ownersDir + "/" + hex.EncodeToString(sum[:16])
}

func (e *entry) text() string {
	var b strings.Builder
	b.WriteString(entryVersion + "\n" + e.owner.ContainerID + "\n" + e.owner.Interface + "\n")
	fmt.Fprintf(&b, "%d:%d\n", e.sandbox.Device, e.sandbox.Inode)
	for i, h := range e.held {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(h.addr.String())
		b.WriteByte('/')
		b.WriteString(h.set.String())
	}
	b.WriteString("\n" + e.sandbox.Path)
	return b.String()
}

// parseEntry reads the text of an entry. It reports false for a text that
// entry.text cannot have produced.
func parseEntry(text string) (entry, bool) {
	var e entry
	lines := strings.SplitN(text, "\n", 6)
	if len(lines) != 6 || lines[0] != entryVersion {
		return e, false
	}
	e.owner = Owner{ContainerID: lines[1], Interface: lines[2]}
	if o, err := e.owner.canonical(); err != nil || o != e.owner {
		return e, false
	}
	device, inode, ok := strings.Cut(lines[3], ":")
	var err1, err2 error
	e.sandbox.Device, err1 = strconv.ParseUint(device, 10, 64)
	e.sandbox.Inode, err2 = strconv.ParseUint(inode, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return e, false
	}
	for text := range strings.SplitSeq(lines[4], ",") {
		addr, key, _ := strings.Cut(text, "/")
		var h holding
		if h.addr, ok = parseName(addr); !ok {
			return e, false
		}
		if h.set, ok = parseKey(key); !ok {
			return e, false
		}
		e.held = append(e.held, h)
	}
	e.sandbox.Path = lines[5]
	return e, e.sandbox.validate() == nil && e.text() == text
}

func (e *entry) addresses() []netip.Addr {
	addrs := make([]netip.Addr, len(e.held))
	for i, h := range e.held {
		addrs[i] = h.addr
	}
	return addrs
}

func (e *entry) reservation() Reservation {
	return Reservation{Owner: e.owner, Addresses: e.addresses(), Sandbox: e.sandbox, Since: e.since}
}

// same says whether two entries are one and the same reservation, and not a
// later one of the same owner.
func (e *entry) same(o *entry) bool {
	return e.owner == o.owner && e.sandbox == o.sandbox && e.since.Equal(o.since) && e.inode == o.inode && slices.Equal(e.held, o.held)
}

// parseName returns the address that a file's name stands for. Only the one
// spelling that writers use counts.
func parseName(name string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" || addr.Is4In6() || addr.String() != name {
		return netip.Addr{}, false
	}
	return addr, true
}
