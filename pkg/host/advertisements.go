package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

const ipv6Conf = "net/ipv6/conf"

// switchesIPv6Forwarding reports whether the setting makes a router of one or
// of all interfaces.
func (s Sysctl) switchesIPv6Forwarding() bool {
	return strings.HasPrefix(s.Key, ipv6Conf+"/") && strings.HasSuffix(s.Key, "/forwarding") && s.Value == 1
}

// keepAdvertisements lets interfaces go on listening to router advertisements
// when forwarding is switched on. With accept_ra=1, the default, an interface
// that forwards ignores them, and at the moment of the switch the kernel even
// removes the default routes that it has learned: a node with an address from
// SLAAC would be cut off. With 2 it listens although it forwards
// (Documentation/networking/ip-sysctl.rst, accept_ra).
//
// Interfaces that forward already are left alone: they lost nothing, or somebody
// wants it so. Those of pods are left out: a pod must not make itself the node's
// router. Ok is false where an interface could not be helped.
func (k *Keeper) keepAdvertisements(forwarding Sysctl, needs Needs) (findings []Finding, ok bool) {
	links := []string{filepath.Base(filepath.Dir(forwarding.Key))}
	if links[0] == "all" {
		entries, err := os.ReadDir(k.sysctl(ipv6Conf))
		if err != nil {
			return []Finding{{
				Kind: problem.Sysctl, Object: "sysctl net.ipv6.conf.*.accept_ra", Problem: fmt.Sprintf("listing interfaces: %v", err),
				Hint: "check that /proc/sys is mounted",
			}}, false
		}
		links = links[:0]
		for _, e := range entries {
			links = append(links, e.Name())
		}
	}
	ok = true
	for _, link := range links {
		if slices.Contains([]string{"all", "default", "lo", needs.Tunnel}, link) || needs.isPodLink(link) {
			continue
		}
		if own, err := k.readSysctl(ipv6Conf + "/" + link + "/forwarding"); err != nil || own != 0 {
			ok = ok && (err == nil || errors.Is(err, os.ErrNotExist))
			continue
		}
		s := Sysctl{Key: ipv6Conf + "/" + link + "/accept_ra", Value: 2}
		accept, err := k.readSysctl(s.Key)
		if err != nil || accept != 1 {
			ok = ok && (err == nil || errors.Is(err, os.ErrNotExist))
			continue
		}
		f := Finding{
			Kind: problem.Sysctl, Object: "sysctl " + s.Name(), Found: "1", Wanted: "2",
			Hint: "a forwarding interface listens to router advertisements only with 2",
		}
		k.writeSysctl(s, &f)
		findings = append(findings, f)
		ok = ok && f.Repaired
	}
	return findings, ok
}

// isPodLink reports whether a name is that of a pod's host interface.
func (n Needs) isPodLink(name string) bool {
	if n.HostInterfacePrefix == "" {
		return false
	}
	return regexp.MustCompile("^" + regexp.QuoteMeta(n.HostInterfacePrefix) + "[0-9a-f]{11}$").MatchString(name)
}
