package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrLocked means that somebody else held the lock until the deadline or
// until the context ended. Trying again later is worth it.
var ErrLocked = errors.New("the lock is held by another process")

// ExhaustedError means that every address of a set is reserved.
type ExhaustedError struct {
	// Set is the range set that has nothing left.
	Set RangeSet
	// Used is the number of its addresses that are reserved.
	Used uint64
	// Cooling is the number of its addresses that were released, but must
	// not be handed out yet. It is 0: this store hands out the one that was
	// released first rather than none.
	Cooling uint64
	// Stale is the number of its reservations whose pods were proven gone.
	// They were released, and others were quicker to take the addresses.
	Stale uint64
}

func (e *ExhaustedError) Error() string {
	text := fmt.Sprintf("no IP addresses available in range set %s: %d reserved", e.Set, e.Used)
	if e.Cooling != 0 {
		text += fmt.Sprintf(", %d cooling down", e.Cooling)
	}
	if e.Stale != 0 {
		text += fmt.Sprintf(", %d of them collected and taken again meanwhile", e.Stale)
	}
	return text
}

// DuplicateError means that the owner of a request holds addresses already.
// They are left as they are.
type DuplicateError struct {
	Owner     Owner
	Addresses []netip.Addr
}

func (e *DuplicateError) Error() string {
	verb := "is"
	if len(e.Addresses) > 1 {
		verb = "are"
	}
	return fmt.Sprintf("%s %s already reserved for %s", join(e.Addresses), verb, e.Owner)
}

// TakenError means that a requested address is reserved for somebody else.
type TakenError struct {
	Address netip.Addr
	// Holder is the zero Owner if the record does not name one.
	Holder Owner
}

func (e *TakenError) Error() string {
	if e.Holder == (Owner{}) {
		return fmt.Sprintf("requested address %s is not available: its record names no owner", e.Address)
	}
	return fmt.Sprintf("requested address %s is not available: it is reserved for %s", e.Address, e.Holder)
}

// OutsideError means that the pool cannot serve a requested address, whoever
// asks for it.
type OutsideError struct {
	Address netip.Addr
	// Rule is why not; it reads on from the address.
	Rule string
}

func (e *OutsideError) Error() string {
	return fmt.Sprintf("requested address %s %s", e.Address, e.Rule)
}

// join lists addresses in prose.
func join(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, " and ")
}
