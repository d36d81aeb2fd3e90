package announce

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// open answers at those of the named interfaces that can be used.
func (a *Announcer) open() {
	usable := map[string]net.Interface{}
	a.down = nil
	for _, name := range a.named {
		i, err := net.InterfaceByName(name)
		switch {
		case err != nil: // another node has it
		case i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0:
			a.down = append(a.down, name+": it is down, or has no carrier")
		case len(i.HardwareAddr) != 6:
			a.down = append(a.down, name+": it has no MAC address")
		default:
			usable[name] = *i
		}
	}
	for name, l := range a.links {
		if i, is := usable[name]; !is || i.Index != l.index || i.HardwareAddr.String() != l.mac.String() {
			l.close()
			delete(a.links, name)
		}
	}
	for name, i := range usable {
		if a.links[name] != nil {
			continue
		}
		l, err := openLink(i, a.pact, a.hear, &a.counts, a.Log)
		if err != nil {
			a.down = append(a.down, err.Error())
			continue
		}
		a.links[name] = l
	}
	slices.Sort(a.down)
	a.Lease.Rest(len(a.links) == 0)
	if len(a.links) > 0 {
		a.Table.Only("")
	} else {
		a.Table.Only(a.Otherwise) // who cannot answer need not know who does
	}
}

// has reports whether the node answers for an address at some interface.
func (a *Announcer) has(ip netip.Addr) bool {
	for _, l := range a.links {
		if l.owns(ip) {
			return true
		}
	}
	return false
}

// setLinks has the links answer, and announce what is new.
func (a *Announcer) setLinks(owned map[netip.Addr]Address, state *State) {
	var fresh []netip.Addr
	var errs []error
	for ip := range owned {
		if !a.has(ip) {
			a.pact.takes()
			break
		}
	}
	for name, l := range a.links {
		here := map[netip.Addr]ownership{}
		for ip, w := range owned {
			if slices.Contains(w.Interfaces, name) {
				here[ip] = ownership{without: w.Without}
			}
		}
		more, err := l.set(here)
		fresh, errs = append(fresh, more...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		state.Failure = err.Error()
	}
	slices.SortFunc(fresh, netip.Addr.Compare)
	for _, ip := range slices.Compact(fresh) {
		a.announce(ip)
		a.repeats = append(a.repeats, repeat{ip, time.Now().Add(pauses[0]), pauses[1:]})
	}
	if len(fresh) > 0 {
		a.Log.Info("answering for addresses of load balancers", "more", len(fresh), "all", len(owned))
	}
}

func (a *Announcer) announce(ip netip.Addr) {
	for _, l := range a.links {
		l.announce(ip)
	}
}

// repeat makes the announcements that are due, and returns when the next one is.
func (a *Announcer) repeat(now time.Time) (next time.Time) {
	kept := a.repeats[:0]
	for _, r := range a.repeats {
		if !r.at.After(now) {
			a.announce(r.ip)
			if len(r.left) == 0 {
				continue
			}
			r.at, r.left = now.Add(r.left[0]), r.left[1:]
		}
		if next.IsZero() || r.at.Before(next) {
			next = r.at
		}
		kept = append(kept, r)
	}
	a.repeats = kept
	return next
}
