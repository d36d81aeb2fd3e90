package ipam

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// How many released addresses of a set are remembered. Forgotten ones are
// found again by the next lap. While a lap has longer to go than longLap, it
// will not come to an end soon (a /64 never does), and it is enough not to
// meet what was released lately.
const (
	longLap      = 65_536
	maxQueue     = 65_536
	maxQueueLong = 1_024
)

func placeName(key setKey, number uint64) string {
	return fmt.Sprintf("%s/%s/%016x", setsDir, key, number)
}

func releasedName(addr netip.Addr) string {
	return releasedDir + "/" + addr.String()
}

func placeText(key setKey, number uint64) string {
	return fmt.Sprintf("%s/%016x", key, number)
}

// parsePlace reads what placeText wrote.
func parsePlace(text string) (key setKey, number uint64, ok bool) {
	k, n, _ := strings.Cut(text, "/")
	key, ok1 := parseKey(k)
	number, ok2 := parseNumber(n)
	return key, number, ok1 && ok2 && key != setKey{}
}

// parseNumber reads 16 hexadecimal digits. The largest number is not one, so
// that there is a number behind every number.
func parseNumber(text string) (uint64, bool) {
	if len(text) != 16 {
		return 0, false
	}
	var n uint64
	for _, c := range []byte(text) {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, n < math.MaxUint64
}

// push puts a released address at the end of the queue of its set, which is
// looked for if the key is zero. An address of a set that is not known any
// more is not remembered. The state is marked.
func (x *session) push(key setKey, addr netip.Addr) error {
	for _, sl := range x.st.slots {
		sl.full = false
	}
	if key == (setKey{}) {
		key = x.setOf(addr)
	}
	sl := x.st.slot(key)
	if sl == nil || sl.unborn {
		return nil
	}
	if err := x.forget(addr); err != nil {
		return err
	}
	limit := uint64(maxQueue)
	if sl.fresh > longLap {
		limit = maxQueueLong
	}
	// Two at a time, so that a queue that is to be shorter than it was gets
	// there without one release taking long.
	for n := 0; n < 2 && sl.queued >= limit; n++ {
		oldest, err := x.head(sl)
		if err != nil {
			return err
		}
		if !oldest.IsValid() {
			break
		}
		if err := x.forget(oldest); err != nil {
			return err
		}
	}
	if sl.tail == math.MaxUint64 {
		return nil
	}
	if err := x.symlink(addr.String(), placeName(key, sl.tail)); err != nil {
		return err
	}
	sl.tail++
	if err := x.symlink(placeText(key, sl.tail-1), releasedName(addr)); err != nil {
		return err
	}
	sl.queued++
	return nil
}

// pushLeniently is push for when the address is free already: that a full
// disk does not let us remember it must not keep it from being freed.
func (x *session) pushLeniently(key setKey, addr netip.Addr) error {
	err := x.push(key, addr)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		x.s.log.Warn("a released address is not remembered", "address", addr, "error", err)
		return nil
	}
	return err
}

// forget takes an address out of the queue that it is in, if it is in one.
// The state is marked.
func (x *session) forget(addr netip.Addr) error {
	text, err := x.readlink(releasedName(addr))
	if err != nil || text == "" {
		return err
	}
	if key, number, ok := parsePlace(text); ok {
		if err := x.remove(placeName(key, number)); err != nil {
			return err
		}
		if sl := x.st.slot(key); sl != nil && sl.queued > 0 {
			sl.queued--
		}
	}
	return x.remove(releasedName(addr))
}

// head returns the address at the head of the queue, or the zero Addr if the
// queue is empty. It steps over gaps, and removes what is none of its own.
func (x *session) head(sl *slot) (netip.Addr, error) {
	gaps := 0
	for sl.head < sl.tail {
		name := placeName(sl.key, sl.head)
		text, err := x.readlink(name)
		if err != nil {
			return netip.Addr{}, err
		}
		if text == "" {
			if gaps++; gaps > 32 {
				// Addresses that were asked for by name left many places
				// empty. Find the next one that is not.
				if err := x.leap(sl); err != nil {
					return netip.Addr{}, err
				}
				gaps = 0
				continue
			}
			sl.head++
			continue
		}
		if addr, ok := parseName(text); ok {
			place, err := x.readlink(releasedName(addr))
			if err != nil {
				return netip.Addr{}, err
			}
			if place == placeText(sl.key, sl.head) {
				return addr, nil
			}
		}
		if err := x.mark(); err != nil {
			return netip.Addr{}, err
		}
		if err := x.remove(name); err != nil {
			return netip.Addr{}, err
		}
		sl.head++
	}
	sl.queued = 0
	return netip.Addr{}, nil
}

// leap moves the head to the first place that is not empty.
func (x *session) leap(sl *slot) error {
	numbers, err := x.places(sl.key)
	if err != nil {
		return err
	}
	i, _ := slices.BinarySearch(numbers, sl.head)
	if i == len(numbers) || numbers[i] >= sl.tail {
		sl.head = sl.tail
		return nil
	}
	sl.head = numbers[i]
	return nil
}

// places returns the numbers in the queue of a set, in order.
func (x *session) places(key setKey) ([]uint64, error) {
	entries, err := x.list(setsDir + "/" + key.String())
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		if n, ok := parseNumber(e.Name()); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// oldest returns the address of the set that was released first, or the zero
// Addr. It stays in the queue. Addresses that the set does not serve any more
// and such that have a record again are taken out.
func (x *session) oldest(sl *slot, set RangeSet) (netip.Addr, error) {
	for {
		addr, err := x.head(sl)
		if err != nil || !addr.IsValid() {
			return netip.Addr{}, err
		}
		reserved, err := x.exists(addr.String())
		if err != nil {
			return netip.Addr{}, err
		}
		if !reserved && set.serves(addr) {
			return addr, nil
		}
		if err := x.mark(); err != nil {
			return netip.Addr{}, err
		}
		if err := x.forget(addr); err != nil {
			return netip.Addr{}, err
		}
	}
}
