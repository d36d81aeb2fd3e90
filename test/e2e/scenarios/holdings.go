package scenarios

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
)

// holdings are what flatnet keeps for pods on one node: on its disk and in its
// kernel. All of it is told by marks: the directory /run/flatnet, interface
// group 70 and route protocol 70.
type holdings struct {
	reservations, attachments, routes []netip.Addr // of pods
	interfaces                        []string
	files                             []string // below /run/flatnet, also those above
}

// askHoldings is the script that [parseHoldings] reads.
const askHoldings = `
find /run/flatnet -type f -printf 'file %P\n'
for f in /run/flatnet/attachments/*; do test -e $f && echo "attachment $(cat $f)"; done
ip -o link show type veth group 70 | sed 's/^/interface /'
ip -4 route show proto 70 | sed 's/^/route /'
ip -6 route show proto 70 | sed 's/^/route /'`

// parseHoldings reads lines of a kind and what the tool said.
func parseHoldings(text string) (h holdings, err error) {
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		fields := strings.Fields(rest)
		switch {
		case kind == "file":
			h.files = append(h.files, rest)
			// Reservations are ipam/NETWORK/ADDRESS.
			if directory, name := path.Split(rest); strings.Count(directory, "/") == 2 && strings.HasPrefix(directory, "ipam/") {
				if a, err := netip.ParseAddr(name); err == nil {
					h.reservations = append(h.reservations, a)
				}
			}
		case kind == "attachment":
			var record struct {
				Wire struct{ Addresses []netip.Addr }
			}
			if err := json.Unmarshal([]byte(rest), &record); err != nil {
				return h, fmt.Errorf("reading attachment %q: %w", rest, err)
			}
			h.attachments = append(h.attachments, record.Wire.Addresses...)
		case kind == "interface" && len(fields) > 1:
			name, _, _ := strings.Cut(fields[1], "@") // 4: veth8acb974039a@if2: …
			h.interfaces = append(h.interfaces, name)
		case kind == "route" && len(fields) > 0:
			// Those of other nodes are prefixes; link-local ones go with the interface.
			if a, err := netip.ParseAddr(fields[0]); err == nil && !a.IsLinkLocalUnicast() {
				h.routes = append(h.routes, a)
			}
		default:
			return h, fmt.Errorf("reading what a node holds: unexpected line %q", line)
		}
	}
	return h, nil
}

// compare says what a node holds that none of its pods needs, and what they
// lack.
func (h holdings) compare(pods []pod) error {
	var errs []error
	owner := map[netip.Addr]string{}
	attached := 0
	for _, p := range pods {
		name := p.Namespace + "/" + p.Name
		switch {
		case p.OnHost || p.Ended:
			continue
		case p.Ending:
			errs = append(errs, fmt.Errorf("pod %s has not ended", name))
		case len(p.Addresses) == 0:
			errs = append(errs, fmt.Errorf("pod %s has no address", name))
		}
		attached++
		for _, a := range p.Addresses {
			if other, taken := owner[a]; taken {
				errs = append(errs, fmt.Errorf("pods %s and %s have one address, %s", other, name, a))
			}
			owner[a] = name
		}
	}
	for _, kind := range []struct {
		name string
		held []netip.Addr
	}{{"reservation", h.reservations}, {"attachment", h.attachments}, {"route", h.routes}} {
		missing := map[netip.Addr]bool{}
		for a := range owner {
			missing[a] = true
		}
		for _, a := range kind.held {
			if !missing[a] {
				errs = append(errs, fmt.Errorf("%s of %s, which no pod has, or one too many", kind.name, a))
			}
			delete(missing, a)
		}
		for a := range missing {
			errs = append(errs, fmt.Errorf("no %s of %s, which pod %s has", kind.name, a, owner[a]))
		}
	}
	if len(h.interfaces) != attached {
		errs = append(errs, fmt.Errorf("%d interfaces of %d pods: %s", len(h.interfaces), attached, strings.Join(h.interfaces, " ")))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// since lists what there is now and was not before.
func (h holdings) since(before holdings) error {
	var errs []error
	for _, kind := range []struct {
		name        string
		now, before []string
	}{
		{"reservation", texts(h.reservations), texts(before.reservations)},
		{"attachment", texts(h.attachments), texts(before.attachments)},
		{"route", texts(h.routes), texts(before.routes)},
		{"interface", h.interfaces, before.interfaces},
		{"file", h.files, before.files},
	} {
		for _, one := range kind.now {
			if !slices.Contains(kind.before, one) {
				errs = append(errs, fmt.Errorf("%s %s is left", kind.name, one))
			}
		}
	}
	return errors.Join(errs...)
}

func texts[T fmt.Stringer](values []T) (all []string) {
	for _, v := range values {
		all = append(all, v.String())
	}
	return all
}

// holdings of a node, now.
func (r *Run) holdings(node string) (holdings, error) {
	text, err := r.Lab.Output(node, "sh", "-c", askHoldings)
	if err != nil {
		return holdings{}, err
	}
	return parseHoldings(text)
}

// agree waits until what flatnet holds on a node is exactly what the pods need
// that the API knows there.
func (r *Run) agree(node string) error {
	return lab.Until(r, slowestReturn, "nothing to be held on "+node+" but what pods need", func() error {
		pods, err := r.onNode(node)
		if err != nil {
			return err
		}
		held, err := r.holdings(node)
		if err != nil {
			return err
		}
		return held.compare(pods)
	})
}
