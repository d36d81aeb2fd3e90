package loadbalancer

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// write writes a Service's status. It fails where the Service is another one by now: then
// the watch brings it.
func (c *Controller) write(ctx context.Context, d Decision) error {
	s := d.Service
	all := []map[string]string{}
	for _, ip := range d.Addresses {
		all = append(all, map[string]string{"ip": ip.String()})
	}
	// Whoever has changed the Service since, or made another one of its name, wins.
	meta := map[string]string{"resourceVersion": s.Version}
	if s.UID != "" {
		meta["uid"] = s.UID
	}
	patch, err := json.Marshal(map[string]any{"metadata": meta, "status": map[string]any{"loadBalancer": map[string]any{"ingress": all}}})
	if err != nil {
		return fmt.Errorf("encoding the status of Service %s: %w", s.Name, err)
	}
	until, _ := c.Leader.Until()
	if most := time.Now().Add(writeTimeout); most.Before(until) {
		until = most
	}
	limited, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	err = c.Writer.PatchServiceStatus(limited, s.Name.Namespace, s.Name.Name, patch)
	if c.Wrote != nil {
		c.Wrote(err)
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of Service %s: %w", s.Name, err)
	}
	c.Services.Assume(s, d.Addresses)
	c.Log.Info("addresses of a Service", "service", s.Name.String(), "before", fmt.Sprint(s.Held), "now", fmt.Sprint(d.Addresses), "because", strings.Join(d.Lost, "; "))
	return nil
}

// tell makes Events on the Service of what its owner has to know, each once.
func (c *Controller) tell(ctx context.Context, d Decision) {
	if len(d.Lost) > 0 {
		c.once(ctx, d.Service, "AddressLost", strings.Join(d.Lost, "; "))
	}
	if d.Waits != "" {
		c.once(ctx, d.Service, "NoAddress", d.Waits)
	} else {
		delete(c.told, d.Service.UID+" NoAddress")
	}
}

func (c *Controller) once(ctx context.Context, s *Service, reason, message string) {
	key := s.UID + " " + reason
	if c.told[key] == message || !c.events.may(time.Now()) {
		return
	}
	if len(c.told) > mostTold {
		clear(c.told) // those of Services that are gone; an Event has its name of what it says
	}
	c.told[key] = message
	c.Reporter.Report(ctx, s.Name, s.UID, reason, message)
}

// mostTold is how many Services are remembered to have been told something.
const mostTold = 10_000

// events limits how many Events are made: a pool that is full may be the same news to a
// thousand Services.
type events struct {
	left float64
	last time.Time
	held bool // some were not made
}

const (
	eventsAtOnce    = 25
	eventsPerSecond = 1
)

func (e *events) may(now time.Time) bool {
	e.left = min(eventsAtOnce, e.left+now.Sub(e.last).Seconds()*eventsPerSecond)
	e.last = now
	if e.left < 1 {
		e.held = true
		return false
	}
	e.left--
	return true
}
