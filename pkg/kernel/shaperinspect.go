package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// inspectShaper compares the shaper with what the interface sends with.
// Equivalent to: `tc qdisc show dev LINK root; tc class show dev LINK; tc filter show dev LINK`.
func (n *Netlink) inspectShaper(o Shaper) (string, error) {
	s, index, err := n.on(o.Side, o.Link)
	if isGone(err) {
		return missing(o.Side, o.Link), nil
	}
	if err != nil {
		return "", err
	}
	of := fmt.Sprintf("%s interface %s", o.Side, o.Link)
	kind, options, err := s.root(index)
	if err != nil {
		return "", err
	}
	want := "tbf"
	if len(o.networks()) > 0 {
		want = "htb"
	}
	if kind != want {
		if kind == "" || kind == "noqueue" {
			kind = "no qdisc"
		}
		return fmt.Sprintf("%s has %s instead of the %s that holds it to a rate", of, kind, want), nil
	}
	var found string
	if want == "tbf" {
		found = o.compareTBF(options)
	} else {
		found, err = o.compareHTB(s, index, options)
	}
	if found != "" {
		found = of + " has " + found
	}
	return found, err
}

// root returns the kind and the options of an interface's root qdisc, "" where it
// has none but the kernel's own.
func (s *socket) root(index int) (kind string, options []byte, err error) {
	// Whoever listens is told; the one who asks on older kernels only with NLM_F_ECHO.
	answer, err := s.Execute(tcRequest(s, unix.RTM_GETQDISC, unix.NLM_F_ECHO|unix.NLM_F_ACK, index, rootParent, 0))
	if isGone(err) || errors.Is(err, unix.EINVAL) {
		return "", nil, nil
	}
	if err != nil || len(answer) == 0 {
		return "", nil, err
	}
	kind, options = tcContent(answer[0])
	return kind, options, nil
}

// tcContent reads the kind and the options out of a message about traffic control.
func tcContent(message []byte) (kind string, options []byte) {
	if len(message) < nl.SizeofTcMsg {
		return "", nil
	}
	for k, value := range netlink.Attributes(message[nl.SizeofTcMsg:]) {
		switch k {
		case nl.TCA_KIND:
			kind = unix.ByteSliceToString(value)
		case nl.TCA_OPTIONS:
			options = value
		}
	}
	return kind, options
}

func (s Shaper) compareTBF(options []byte) string {
	var rate uint64
	var limit, buffer uint32
	for kind, value := range netlink.Attributes(options) {
		switch {
		case kind == nl.TCA_TBF_PARMS && len(value) >= nl.SizeofTcTbfQopt:
			p := nl.DeserializeTcTbfQopt(value)
			limit, buffer = p.Limit, p.Buffer
			if rate == 0 {
				rate = uint64(p.Rate.Rate)
			}
		case kind == nl.TCA_TBF_RATE64 && len(value) == 8:
			rate = nl.NativeEndian().Uint64(value)
		}
	}
	if found := s.compareRate(rate, buffer); found != "" {
		return found
	}
	if limit != s.Limit {
		return fmt.Sprintf("a limit of %d bytes instead of %d", limit, s.Limit)
	}
	return ""
}

func (s Shaper) compareRate(rate uint64, ticks uint32) string {
	if rate != s.bytesPerSecond() {
		return fmt.Sprintf("rate %d instead of %d bytes per second", rate, s.bytesPerSecond())
	}
	// The kernel calculates with a rounded factor, and tells 32 bits of the result.
	tolerance := s.ticks()>>16 + 4
	if off := int64(int32(ticks - uint32(s.ticks()))); uint64(max(off, -off)) > tolerance && !(s.ticks() > math.MaxUint32 && ticks == math.MaxUint32) {
		return fmt.Sprintf("a burst other than %d bytes", s.Burst)
	}
	return ""
}

func (s Shaper) compareHTB(on *socket, index int, options []byte) (string, error) {
	for kind, value := range netlink.Attributes(options) {
		if kind == nl.TCA_HTB_INIT && len(value) >= nl.SizeofTcHtbGlob {
			if found := nl.DeserializeTcHtbGlob(value).Defcls; found != s.defaultClass() {
				return fmt.Sprintf("default class %x instead of %x", found, s.defaultClass()), nil
			}
		}
	}
	answer, err := on.Execute(tcRequest(on, unix.RTM_GETTCLASS, unix.NLM_F_ECHO|unix.NLM_F_ACK, index, 0, shapedClass))
	if isGone(err) {
		return "no class 1:1", nil
	}
	if err != nil || len(answer) == 0 {
		return "", err
	}
	var rate uint64
	var ticks uint32
	_, options = tcContent(answer[0])
	for kind, value := range netlink.Attributes(options) {
		switch {
		case kind == nl.TCA_HTB_PARMS && len(value) >= nl.SizeofTcHtbCopt:
			p := nl.DeserializeTcHtbCopt(value)
			ticks = p.Buffer
			if rate == 0 {
				rate = uint64(p.Rate.Rate)
			}
		case kind == htbRate64 && len(value) == 8:
			rate = nl.NativeEndian().Uint64(value)
		}
	}
	if found := s.compareRate(rate, ticks); found != "" {
		return found, nil
	}
	return s.compareFilters(on, index)
}

// compareFilters looks for each filter among those of the interface.
func (s Shaper) compareFilters(on *socket, index int) (string, error) {
	answer, err := on.Dump(unix.RTM_GETTFILTER, &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: rootHandle})
	if err != nil && !isGone(err) {
		return "", err
	}
	type seen struct {
		class uint32
		keys  []byte
	}
	var all []seen
	for _, message := range answer {
		var one seen
		_, options := tcContent(message)
		for kind, value := range netlink.Attributes(options) {
			switch {
			case kind == nl.TCA_U32_CLASSID && len(value) == 4:
				one.class = nl.NativeEndian().Uint32(value)
			case kind == nl.TCA_U32_SEL && len(value) >= u32SelSize:
				one.keys = telling(value[u32SelSize:])
			}
		}
		if one.keys != nil {
			all = append(all, one)
		}
	}
	wanted := s.filters()
	for _, f := range wanted {
		if !slices.ContainsFunc(all, func(o seen) bool {
			return o.class == f.class && bytes.Equal(o.keys, telling(f.selector()[u32SelSize:]))
		}) {
			return fmt.Sprintf("no filter for %s", f.network), nil
		}
	}
	if len(all) != len(wanted) {
		return fmt.Sprintf("%d filters instead of %d", len(all), len(wanted)), nil
	}
	return "", nil
}

// telling are the keys of a selector that not every packet matches.
func telling(keys []byte) []byte {
	some := []byte{}
	for key := range slices.Chunk(keys, u32KeySize) {
		if len(key) == u32KeySize && !bytes.Equal(key[:4], make([]byte, 4)) {
			some = append(some, key...)
		}
	}
	return some
}
