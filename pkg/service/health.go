package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// health answers load balancers that ask whether this node has endpoints of a
// Service: at the Service's healthCheckNodePort, on the addresses of NodePorts,
// with status 200 where it has, and 503 where it has none.
type health struct {
	log     *slog.Logger
	healthy func() bool // whether connections find their way
	servers map[healthKey]*healthServer
	failed  map[healthKey]bool // could not be listened on, and that was said
}

type healthKey struct {
	service Name
	at      netip.AddrPort
}

type healthServer struct {
	server    *http.Server
	endpoints atomic.Int64
}

func newHealth(log *slog.Logger, healthy func() bool) *health {
	return &health{log: log, healthy: healthy, servers: map[healthKey]*healthServer{}, failed: map[healthKey]bool{}}
}

// health returns the addresses and how many endpoints are to be told there.
func (p *Planner) health() map[healthKey]int {
	wanted := map[healthKey]int{}
	for name, count := range p.checked {
		port := p.services[name].service.HealthCheckPort
		for _, a := range p.node.NodePortAddresses {
			wanted[healthKey{name, netip.AddrPortFrom(a, port)}] = count
		}
	}
	return wanted
}

// localReady counts a Service's endpoints on the node that are ready, each once
// whatever ports it has.
func localReady(s *Service, n *Node) int {
	ready := map[netip.Addr]bool{}
	for _, slice := range s.Slices {
		for _, e := range slice.Endpoints {
			if e.Ready && e.Node == n.Name {
				ready[e.Address] = true
			}
		}
	}
	return len(ready)
}

// apply listens where it is wanted, and no longer where it is not. What cannot be
// listened on is tried again next time.
func (h *health) apply(wanted map[healthKey]int) {
	for k, s := range h.servers {
		if _, is := wanted[k]; !is {
			s.server.Close()
			delete(h.servers, k)
		}
	}
	maps.DeleteFunc(h.failed, func(k healthKey, _ bool) bool { _, is := wanted[k]; return !is })
	for _, k := range slices.SortedFunc(maps.Keys(wanted), healthKey.compare) {
		if h.servers[k] != nil || h.listen(k) {
			h.servers[k].endpoints.Store(int64(wanted[k]))
		}
	}
}

func (k healthKey) compare(o healthKey) int {
	return cmp.Or(k.service.Compare(o.service), k.at.Compare(o.at))
}

func (h *health) listen(k healthKey) bool {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", k.at.String())
	if err != nil {
		if !h.failed[k] {
			h.failed[k] = true
			h.log.Error("cannot answer load balancers that ask for a Service's health, trying again", "service", k.service.String(), "address", k.at.String(), "error", err)
		}
		return false
	}
	delete(h.failed, k)
	s := &healthServer{}
	s.server = &http.Server{Handler: h.handler(k.service, s), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	h.servers[k] = s
	go func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("no longer answers load balancers", "service", k.service.String(), "address", k.at.String(), "error", err)
		}
	}()
	return true
}

// handler answers with what kube-proxy answers: load balancers may read it.
func (h *health) handler(name Name, s *healthServer) http.Handler {
	type service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		count, healthy := s.endpoints.Load(), h.healthy()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(count, 10))
		if count == 0 || !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		text, err := json.MarshalIndent(struct {
			Service             service `json:"service"`
			LocalEndpoints      int64   `json:"localEndpoints"`
			ServiceProxyHealthy bool    `json:"serviceProxyHealthy"`
		}{service(name), count, healthy}, "", "\t")
		if err != nil {
			panic(fmt.Sprintf("service: writing health of %s: %v", name, err))
		}
		_, _ = w.Write(append(text, '\n'))
	})
}

// close ends all listeners.
func (h *health) close() { h.apply(nil) }
