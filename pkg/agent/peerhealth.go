package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/health"
)

// HealthStatus is what probes say of the way to a peer. What is not known is left out;
// all of it is, where no probes are sent.
type HealthStatus struct {
	// State is ok, lossy (some probes are lost), lost (none is answered by now), silent
	// (the peer is reached, and does not answer probes) or unknown.
	State string `json:"state"`
	Sent  int    `json:"sent,omitempty"` // of the last probes, 20 a way at most
	Lost  int    `json:"lost,omitempty"` // how many of these were not answered
	// RoundTrip is the median of the answers to these.
	RoundTrip int64 `json:"roundTripMicroseconds,omitempty"`
	// Since is when the state began.
	Since time.Time `json:"since,omitzero"`
	// FullSize says whether probes as large as pods' packets get through: ok or lost;
	// "" where that is not known.
	FullSize string `json:"fullSize,omitempty"`
}

// wayHealth is what is known of the way to a podCIDR; nil for nothing.
func wayHealth(p *health.Prober, podCIDR netip.Prefix) *HealthStatus {
	if p == nil {
		return nil
	}
	r, known := p.Report(fabric.Answering(podCIDR))
	if !known {
		return nil
	}
	return &HealthStatus{
		State: string(r.State), Sent: r.Sent, Lost: r.Lost, RoundTrip: r.RoundTrip.Microseconds(), Since: r.Since.UTC(), FullSize: r.FullSize,
	}
}

// sumHealth is that of a peer: the worst of its ways, with the probes of all.
func sumHealth(ways []WayStatus) (sum *HealthStatus) {
	for _, w := range ways {
		h := w.Health
		switch {
		case h == nil:
		case sum == nil:
			first := *h
			sum = &first
		default:
			sum.Sent, sum.Lost = sum.Sent+h.Sent, sum.Lost+h.Lost
			sum.RoundTrip = max(sum.RoundTrip, h.RoundTrip)
			if health.State(h.State).Worse(health.State(sum.State)) {
				sum.State, sum.Since = h.State, h.Since
			}
			if h.FullSize == health.FullLost || sum.FullSize == "" {
				sum.FullSize = h.FullSize
			}
		}
	}
	return sum
}

// unwell reports whether packets do not get through as they should.
func (h *HealthStatus) unwell() bool {
	return h != nil && (h.State == string(health.Lost) || h.State == string(health.Lossy) || h.FullSize == health.FullLost)
}

// text says it in a column: "0.31ms", "0.31ms 15% lost", "LOST".
func (h *HealthStatus) text() string {
	if h == nil {
		return "-"
	}
	var words []string
	switch health.State(h.State) {
	case health.Lost:
		return "LOST"
	case health.Silent:
		return "no probes there"
	case health.Unknown:
		return "-"
	}
	if h.RoundTrip > 0 {
		words = append(words, milliseconds(h.RoundTrip))
	}
	if h.Lost > 0 && h.Sent > 0 {
		words = append(words, fmt.Sprintf("%d%% lost", (h.Lost*100+h.Sent/2)/h.Sent))
	}
	if h.FullSize == health.FullLost {
		words = append(words, "LARGE LOST")
	}
	if len(words) == 0 {
		return h.State
	}
	return strings.Join(words, ", ")
}

func milliseconds(micro int64) string {
	if micro < 10_000 {
		return fmt.Sprintf("%.2fms", float64(micro)/1000)
	}
	return fmt.Sprintf("%.0fms", float64(micro)/1000)
}
