package announce

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// counts are of answers and announcements.
type counts struct {
	arp, ndp, announced atomic.Uint64
}

// link answers at one interface. Answers are given on goroutines of its own.
type link struct {
	name   string
	index  int
	mac    net.HardwareAddr
	valid  func() bool              // whether the node may answer now
	pact   *pact                    // if not
	heard  func(answer, freed bool) // is called with what [pact.hear] says of a word
	log    *slog.Logger
	counts *counts

	arp    *packets
	ndp    *packets // nil before there is an IPv6 address
	words  *packets
	groups *groups
	source netip.Addr // of advertisements

	mu       sync.RWMutex
	owned    map[netip.Addr]ownership
	conflict map[netip.Addr]Conflict
	running  sync.WaitGroup
}

// ownership is that a link answers for an address.
type ownership struct {
	since   time.Time
	without Without // a valid Lease
	lost    bool    // to another node, until the Lease is valid and all is decided anew
}

// Conflict is somebody else who says that an address is theirs.
type Conflict struct {
	IP        netip.Addr `json:"ip"`
	Interface string     `json:"interface"`
	MAC       string     `json:"mac"`
	At        time.Time  `json:"at"`
}

const (
	// settled is how long after a takeover whoever had the address before may still say so.
	settled = 2 * Duration
	// remembered is how long a conflict is told after it was seen last.
	remembered = 2 * time.Minute
)

// openLink begins to answer for nothing at an interface.
func openLink(i net.Interface, p *pact, heard func(answer, freed bool), c *counts, log *slog.Logger) (*link, error) {
	l := &link{name: i.Name, index: i.Index, mac: i.HardwareAddr, valid: p.lease, pact: p, heard: heard, counts: c, log: log.With("interface", i.Name),
		groups: newGroups(i.Index), owned: map[netip.Addr]ownership{}, conflict: map[netip.Addr]Conflict{}}
	var err error
	if l.arp, err = openPackets(i.Index, etherARP, nil); err != nil {
		return nil, fmt.Errorf("answering ARP at %s: %w", i.Name, err)
	}
	if l.words, err = openPackets(i.Index, etherWord, nil); err != nil {
		l.arp.close()
		return nil, fmt.Errorf("hearing other nodes at %s: %w", i.Name, err)
	}
	l.running.Go(func() { l.note(l.arp.each(l.hearARP)) })
	l.running.Go(func() { l.note(l.words.each(l.hearWord)) })
	return l, nil
}

// note logs why nothing is heard any more.
func (l *link) note(err error) {
	if err != nil {
		l.log.Error("no longer answering", "err", err)
	}
}

func (l *link) close() {
	l.arp.close()
	l.words.close()
	if l.ndp != nil {
		l.ndp.close()
	}
	l.groups.close()
	l.running.Wait()
}

// set has the link answer for these addresses and no others. It returns those that are
// new.
func (l *link) set(all map[netip.Addr]ownership) (fresh []netip.Addr, err error) {
	now := time.Now()
	var errs []error
	for ip := range all {
		if l.owns(ip) {
			continue
		}
		if ip.Is6() {
			err := l.listenNDP()
			if err == nil {
				err = l.groups.join(solicitedNode(ip))
			}
			if err != nil { // it is tried again
				errs = append(errs, fmt.Errorf("answering for %s: %w", ip, err))
				continue
			}
		}
		fresh = append(fresh, ip)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ip := range fresh {
		l.owned[ip] = ownership{since: now, without: all[ip].without}
	}
	for ip, before := range l.owned {
		wanted, is := all[ip]
		l.owned[ip] = ownership{before.since, wanted.without, before.lost}
		if !is {
			delete(l.owned, ip)
			delete(l.conflict, ip)
			if ip.Is6() {
				l.groups.leave(solicitedNode(ip))
			}
		}
	}
	return fresh, errors.Join(errs...)
}

// listenNDP begins to hear solicitations.
func (l *link) listenNDP() error {
	if l.ndp != nil {
		return nil
	}
	ndp, err := openPackets(l.index, etherIPv6, isNeighbour)
	if err != nil {
		return fmt.Errorf("answering NDP at %s: %w", l.name, err)
	}
	l.source = linkLocal(l.name)
	l.ndp = ndp
	l.running.Go(func() { l.note(ndp.each(l.hearNDP)) })
	return nil
}

// linkLocal is an interface's link-local address; none where it has none.
func linkLocal(name string) netip.Addr {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Addr{}
	}
	addresses, _ := i.Addrs()
	for _, a := range addresses {
		if n, is := a.(*net.IPNet); is {
			if ip, _ := netip.AddrFromSlice(n.IP); ip.Is6() && ip.IsLinkLocalUnicast() {
				return ip
			}
		}
	}
	return netip.Addr{}
}

// owns reports whether the link is to answer for an address.
func (l *link) owns(ip netip.Addr) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, is := l.owned[ip]
	return is
}

// has reports whether the link answers for an address now.
func (l *link) has(ip netip.Addr) bool {
	l.mu.RLock()
	o, is := l.owned[ip]
	l.mu.RUnlock()
	return is && !o.lost && (l.valid() || o.goesOn(l.pact.holds))
}

// goesOn reports whether an address is answered for without a valid Lease.
func (o ownership) goesOn(holds func() bool) bool {
	return o.without == Answer || o.without == Together && holds()
}

// keep has the link go on with those that are not lost and for which it says so. It
// reports whether some of them take all others' leave.
func (l *link) keep(stays func(ownership) bool) (together bool) {
	kept := map[netip.Addr]ownership{}
	l.mu.RLock()
	for ip, o := range l.owned {
		if !o.lost && stays(o) {
			kept[ip] = o
			together = together || o.without == Together
		}
	}
	l.mu.RUnlock()
	_, _ = l.set(kept) // none is new
	return together
}

func (l *link) hearWord(frame []byte) {
	if w, good := readWord(frame); good {
		l.heard(l.pact.hear(w))
	}
}

func (l *link) hearARP(frame []byte) {
	q, asks, good := readARP(frame)
	if !good || q.from.String() == l.mac.String() {
		return
	}
	if l.has(q.asker) {
		l.dispute(q.asker, q.from)
	}
	if asks && l.has(q.target) && l.arp.send(answerARP(l.mac, q)) == nil {
		l.counts.arp.Add(1)
	}
}

// dispute notes that somebody else says to have an address. Without a valid Lease that may
// be who has taken it over: it is theirs.
func (l *link) dispute(ip netip.Addr, mac net.HardwareAddr) {
	valid := l.valid()
	l.mu.Lock()
	defer l.mu.Unlock()
	o, is := l.owned[ip]
	switch now := time.Now(); {
	case !is:
	case !valid:
		o.lost = true
		l.owned[ip] = o
	case now.Sub(o.since) > settled:
		l.conflict[ip] = Conflict{ip, l.name, mac.String(), now}
	}
}

// conflicts are those that were seen lately.
func (l *link) conflicts() (all []Conflict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ip, c := range l.conflict {
		if time.Since(c.At) > remembered {
			delete(l.conflict, ip)
			continue
		}
		all = append(all, c)
	}
	return all
}

func (l *link) hearNDP(frame []byte) {
	if ip, mac, good := readAdvertisement(frame); good && mac.String() != l.mac.String() && l.has(ip) {
		l.dispute(ip, mac)
	}
	q, good := readNDP(frame)
	if good && l.has(q.target) && l.ndp.send(answerNDP(l.mac, l.sourceFor(q.target), q)) == nil {
		l.counts.ndp.Add(1)
	}
}

// sourceFor is the source of an advertisement about an address.
func (l *link) sourceFor(ip netip.Addr) netip.Addr {
	if l.source.IsValid() {
		return l.source
	}
	return ip
}

// announce tells the segment where an address is.
func (l *link) announce(ip netip.Addr) {
	if !l.has(ip) {
		return
	}
	socket, frames := l.arp, [][]byte(nil)
	if ip.Is4() {
		frames = announceARP(l.mac, ip)
	} else if socket = l.ndp; socket != nil {
		frames = announceNDP(l.mac, l.sourceFor(ip), ip)
	}
	for _, frame := range frames {
		if err := socket.send(frame); err == nil {
			l.counts.announced.Add(1)
		}
	}
}

// say tells all other nodes a word; one that is lost is followed by another.
func (l *link) say(w word) {
	for _, frame := range writeWord(l.mac, w) {
		_ = l.words.send(frame)
	}
}
