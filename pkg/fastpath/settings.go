package fastpath

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Raise has all flows decided anew, from the next packet on. It may be called from any
// goroutine, and at any time.
func (k *Keeper) Raise() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.setting == nil {
		return
	}
	k.next()
	if err := k.write(k.deadline); err != nil && k.Log != nil {
		k.Log.Error("remembered flows are not decided anew at once, but within their lifetime", "lifetime", Lifetime, "error", err)
	}
}

// Renew has the programs go by what they remember for [AloneFor] from now on. It may be
// called from any goroutine. Where that was over, nobody has noticed what has changed
// meanwhile, so all flows are decided anew.
func (k *Keeper) Renew() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.setting == nil {
		return nil
	}
	at, err := now()
	if err != nil {
		return err
	}
	if at >= k.deadline {
		k.next()
	}
	if err := k.write(at + AloneFor); err != nil {
		return fmt.Errorf("renewing the deadline of what is remembered: %w", err)
	}
	return nil
}

// next is another generation.
func (k *Keeper) next() {
	const lower = 0xffff
	if k.generation++; k.generation&lower == 0 {
		k.generation++ // 0 means that a packet has none
	}
	k.raised++
}

// write tells the programs the settings, with a deadline in their clock.
func (k *Keeper) write(deadline time.Duration) error {
	k.deadline = deadline
	s := programSettings{
		Generation: k.generation, Lifetime: uint64(Lifetime.Nanoseconds()), Deadline: uint64(deadline.Nanoseconds()),
		Tunnel: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, k.TunnelPort)),
	}
	k.overlay.tell(&s)
	return k.setting.Put(uint32(0), &s)
}

// now is the clock of the programs (CLOCK_MONOTONIC).
func now() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
