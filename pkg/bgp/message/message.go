// Package message is what flatnetd and flatnet-bgp say to each other: lines of JSON.
package message

import "net/netip"

// Desired is all that flatnet-bgp is to do: a line of JSON on its standard input. Each is
// whole, and takes the place of the one before.
type Desired struct {
	Global     Global      `json:"global"`
	Neighbours []Neighbour `json:"neighbours"`
	// Announce has each neighbour once at most. Who is in none is told nothing.
	Announce []Announcement `json:"announce"`
	// Leave has it withdraw everything, say goodbye to all neighbours, and end.
	Leave bool `json:"leave,omitempty"`
}

// Global is what cannot be changed while sessions last.
type Global struct {
	ASN            uint32 `json:"asn"`
	RouterID       string `json:"routerID"`
	ListenPort     int    `json:"listenPort"`
	RestartSeconds uint32 `json:"restartSeconds"`
}

// Neighbour is a peer of this node.
type Neighbour struct {
	Name           string     `json:"name"` // unique
	Address        netip.Addr `json:"address,omitzero"`
	Interface      string     `json:"interface,omitempty"`
	ASN            uint32     `json:"asn"`
	Port           int        `json:"port"`
	PasswordFile   string     `json:"passwordFile,omitempty"` // read by flatnet-bgp alone
	Multihop       int        `json:"multihop,omitempty"`
	HoldSeconds    int        `json:"holdSeconds"`
	ConnectSeconds int        `json:"connectSeconds"`
	Families       []Family   `json:"families"`
	KeepRoutes     bool       `json:"keepRoutes,omitempty"`
}

// Announcement is what some neighbours are told: all of them the same.
type Announcement struct {
	Name        string         `json:"name"`     // unique
	To          []string       `json:"to"`       // names of neighbours
	Prefixes    []netip.Prefix `json:"prefixes"` // sorted
	Communities []Community    `json:"communities,omitempty"`
	MED         *uint32        `json:"med,omitempty"`
	LocalPref   *uint32        `json:"localPref,omitempty"`
}

// Event is a line of JSON on flatnet-bgp's standard output: news of one neighbour.
type Event struct {
	Neighbour string         `json:"neighbour"`
	Session   *Session       `json:"session,omitempty"`
	Paths     []Path         `json:"paths,omitempty"`
	Withdrawn []netip.Prefix `json:"withdrawn,omitempty"`
	// End is the End-of-RIB marker of a family: all that the neighbour had was sent.
	End Family `json:"end,omitempty"`
	// Applied is an answer to a Desired, with what could not be done; Neighbour is empty.
	Applied bool   `json:"applied,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Session is how a session is.
type Session struct {
	State       string `json:"state"` // as RFC 4271 has them: idle, connect, active, opensent, openconfirm, established
	Established bool   `json:"established,omitempty"`
	// Reason is why it ended last, or could not begin; empty where it is not known.
	Reason string `json:"reason,omitempty"`
}

// Path is a neighbour's way to a prefix.
type Path struct {
	Prefix    netip.Prefix `json:"prefix"`
	NextHop   netip.Addr   `json:"nextHop"`
	LocalPref uint32       `json:"localPref,omitempty"`
	MED       uint32       `json:"med,omitempty"`
	Length    int          `json:"length,omitempty"` // of the AS path
	Origin    uint8        `json:"origin,omitempty"`
	Internal  bool         `json:"internal,omitempty"` // of a neighbour in the own AS
	// Own says that the own AS is in the path: nodes of one AS, or the node itself, said so
	// at first.
	Own bool `json:"own,omitempty"`
}
