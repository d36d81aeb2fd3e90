// Package attachment says who an attachment belongs to, what its interfaces are
// called, and what is remembered of it between ADD and DEL.
package attachment

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// Key names an attachment, as the CNI specification does: one network, one
// container, one interface in it.
type Key struct {
	Network     string `json:"network"`
	ContainerID string `json:"containerID"`
	Interface   string `json:"ifname"`
}

func (k Key) String() string { return k.Network + "/" + k.ContainerID + "/" + k.Interface }

// digest is the same for equal keys and, for all that is known, for no others.
// The parts cannot contain the separator.
func (k Key) digest(purpose string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.Join([]string{purpose, k.Network, k.ContainerID, k.Interface}, "\x00")))
}

// maxInterfaceName is IFNAMSIZ less the final zero byte.
const maxInterfaceName = 15

// MaxPrefix is the longest prefix, in bytes, of a host interface's name: eight
// hex digits have to remain, or names would soon collide.
const MaxPrefix = maxInterfaceName - 8

// HostInterface returns the name of the attachment's interface on the host:
// the prefix, filled up to 15 characters with hex digits that depend on the
// key alone, never on the pod's name. So DEL finds it with nothing but the key.
// The next attempt is another name, for the case that two keys share one.
func (k Key) HostInterface(prefix string, attempt int) string {
	sum := k.digest(fmt.Sprintf("host interface %d", attempt))
	return prefix + hex.EncodeToString(sum[:])[:maxInterfaceName-len(prefix)]
}

// MACs returns the MAC addresses of the attachment's two interfaces: locally
// administered, unicast, and the same whenever the same key is attached.
func (k Key) MACs() (host, pod kernel.MAC) {
	sum := k.digest("mac")
	local := func(b []byte) kernel.MAC {
		mac := kernel.MAC(b)
		mac[0] = mac[0]&^0x01 | 0x02
		return mac
	}
	return local(sum[0:6]), local(sum[6:12])
}

// maxAlias is IFALIASZ less the final zero byte.
const maxAlias = 255

// aliasMark begins the alias of every interface that flatnet made.
const aliasMark = "flatnet "

// Alias returns the text that marks the host interface as the attachment's own:
// the whole key, then the pod's name for people. A key that is too long is
// replaced by its digest.
func (k Key) Alias(pod string) string {
	text := aliasMark + k.String()
	if len(text) > maxAlias {
		sum := k.digest("alias")
		text = aliasMark + "sha256:" + hex.EncodeToString(sum[:])
	}
	if pod != "" {
		text += " " + pod
	}
	return text[:min(len(text), maxAlias)]
}

// Owns reports whether an interface with this alias is the attachment's own.
func (k Key) Owns(alias string) bool {
	own := k.Alias("")
	return alias == own || strings.HasPrefix(alias, own+" ")
}

// KeyOf reads the key out of an alias; known is false where the alias is not of
// flatnet, or the key was too long for it.
func KeyOf(alias string) (k Key, known bool) {
	text, ours := strings.CutPrefix(alias, aliasMark)
	text, _, _ = strings.Cut(text, " ")
	parts := strings.Split(text, "/")
	if !ours || len(parts) != 3 {
		return Key{}, false
	}
	return Key{Network: parts[0], ContainerID: parts[1], Interface: parts[2]}, true
}
