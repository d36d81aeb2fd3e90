package agent

import "time"

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
