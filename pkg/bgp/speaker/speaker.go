// Package speaker is flatnet-bgp: it speaks BGP, by GoBGP, as a [message.Desired] says, and
// tells what neighbours do and tell. It decides nothing, and knows neither of nodes nor of
// Services nor of the kernel's routes.
package speaker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

// retry is the pause until what could not be done is tried again: a password file that is
// missing, an interface whose other end has not been heard of.
const retry = 2 * time.Second

// Main does what comes from in and answers on out, until in ends. Then it ends without a
// word to the neighbours, so that these keep the node's routes: whoever has started it is
// gone, and will be back.
func Main(in io.Reader, out io.Writer, log *slog.Logger) error {
	s := &speaker{out: newOutput(out), log: log}
	wanted, ended := make(chan message.Desired), make(chan error, 1)
	go func() {
		decoder := json.NewDecoder(bufio.NewReader(in))
		for {
			var d message.Desired
			if err := decoder.Decode(&d); err != nil {
				ended <- err
				return
			}
			wanted <- d
		}
	}()
	again := time.NewTimer(time.Hour)
	var last message.Desired
	for {
		select {
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("reading what is wanted: %w", err)
		case last = <-wanted:
		case <-again.C:
		}
		again.Reset(time.Hour)
		if last.Leave {
			s.leave()
			return nil
		}
		event := message.Event{Applied: true}
		if err := s.apply(last); err != nil {
			event.Error = err.Error()
			again.Reset(retry)
		}
		s.out.tell(event)
	}
}

// output writes events, many at once where they come in a hurry.
type output struct {
	mu      sync.Mutex
	writer  *bufio.Writer
	flushed *sync.Cond
	pending bool
}

func newOutput(w io.Writer) *output {
	o := &output{writer: bufio.NewWriterSize(w, 64<<10)}
	o.flushed = sync.NewCond(&o.mu)
	go func() {
		o.mu.Lock()
		for {
			for !o.pending {
				o.flushed.Wait()
			}
			o.pending = false
			// Nobody reads any more: then in has ended as well.
			_ = o.writer.Flush()
		}
	}()
	return o
}

func (o *output) tell(e message.Event) {
	line, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("speaker: encoding an event: %v", err))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = o.writer.Write(append(line, '\n'))
	o.pending = true
	o.flushed.Signal()
}

type speaker struct {
	out    *output
	log    *slog.Logger
	server *server.BgpServer
	asn    uint32 // the own one

	mu         sync.Mutex                // of what callbacks of GoBGP read
	neighbours map[netip.Addr]configured // as GoBGP knows them

	// What follows belongs to the goroutine of Main.
	known      map[string]configured   // by name
	announced  map[netip.Prefix]string // what GoBGP has paths to, with the marks
	told       []message.Announcement
	recipients []recipients
	policy     *api.Policy // that lets pass what is told; nil before anything is
	generation int         // of policies
}

// configured is a neighbour as GoBGP was told of it.
type configured struct {
	message.Neighbour
	address  netip.Addr // found by GoBGP where there is an interface
	password string
}

// localOnly is the name of the policy that keeps what neighbours tell out of the table from
// which neighbours are told: a node is no way to anything but its own pods and Services.
const localOnly = "local-only"

// unicast are the families ipv4-unicast and ipv6-unicast, in GoBGP's order of all. It would
// make tables for each, which takes 8 MB.
var unicast = []uint32{0, 1}

func (s *speaker) start(g message.Global) error {
	s.neighbours, s.known, s.announced = map[netip.Addr]configured{}, map[string]configured{}, map[netip.Prefix]string{}
	s.told, s.recipients, s.policy = nil, nil, nil
	s.server = server.NewBgpServer(server.LoggerOption(s.log, nil))
	s.asn = g.ASN
	go s.server.Serve()
	ctx := context.Background()
	port := int32(g.ListenPort)
	if port == 0 {
		port = -1
	}
	if err := s.server.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{Asn: g.ASN, RouterId: g.RouterID, ListenPort: port, Families: unicast}}); err != nil {
		return fmt.Errorf("listening at port %d: %w", g.ListenPort, err)
	}
	policy := &api.Policy{Name: localOnly, Statements: []*api.Statement{{
		Name: localOnly, Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, Actions: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	}}}
	if err := s.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: policy}); err != nil {
		return fmt.Errorf("making a policy: %w", err)
	}
	if err := s.assign(api.PolicyDirection_POLICY_DIRECTION_IMPORT, localOnly); err != nil {
		return fmt.Errorf("setting a policy: %w", err)
	}
	if err := s.exportTo(nil); err != nil {
		return fmt.Errorf("setting a policy: %w", err)
	}
	return s.server.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnPathUpdate: s.paths, OnPathEor: s.end, OnPeerUpdate: s.session,
	}, server.WatchUpdate(true, "", ""), server.WatchEor(true), server.WatchPeer())
}

// apply makes GoBGP do what is wanted. What fails does not keep the rest from being done.
func (s *speaker) apply(d message.Desired) error {
	if s.server == nil {
		if err := s.start(d.Global); err != nil {
			s.server = nil
			return err
		}
	}
	var errs []error
	wanted, found := map[string]bool{}, map[string]netip.Addr{}
	var ready []message.Neighbour
	for _, n := range d.Neighbours {
		wanted[n.Name] = true
		address, err := s.addressOf(n)
		if err != nil {
			errs = append(errs, fmt.Errorf("peer %s: %w", n.Name, err))
			continue
		}
		found[n.Name] = address
		ready = append(ready, n)
	}
	for name, k := range s.known {
		if !wanted[name] {
			errs = append(errs, s.remove(k))
		}
	}
	// A neighbour that is new gets all that is announced at once.
	errs = append(errs, s.announce(d.Announce, found))
	for _, n := range ready {
		if err := s.neighbour(n, found[n.Name], d.Global); err != nil {
			errs = append(errs, fmt.Errorf("peer %s: %w", n.Name, err))
		}
	}
	return errors.Join(errs...)
}

// leave says goodbye: a session that ends with a notification takes the routes along.
func (s *speaker) leave() {
	if s.server != nil {
		s.server.Stop()
	}
}

// named returns the neighbour of an address. GoBGP leaves the interface of a link-local one
// out of paths: then it is the one that has the address on whichever.
func (s *speaker) named(address netip.Addr) (n configured, known bool) {
	address = address.Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, known = s.neighbours[address]; known || address.Zone() != "" {
		return n, known
	}
	for a, candidate := range s.neighbours {
		if a.WithZone("") == address {
			if known {
				return n, false
			}
			n, known = candidate, true
		}
	}
	return n, known
}

// familyOf returns a family as flatnet has it; "" for those that it does not have.
func familyOf(paths *apiutil.Path) message.Family { return families[paths.Family] }
