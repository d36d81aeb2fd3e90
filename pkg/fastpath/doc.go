// Package fastpath has packets of established flows take a short way: netfilter and routing
// decide about a flow, eBPF programs remember what they decided.
//
// bpf/flow.c says what the programs do. Around them there are
//
//   - a table of nftables, which marks what may be remembered ([Table]);
//   - the programs' places, at tc ingress and egress of the interfaces of pods, of the
//     underlay and of the overlay ([Keeper.Attach]), by links of tcx or, on kernels before
//     6.6, by filters;
//   - a number that is raised when anything changes that a decision may have come from
//     ([Keeper.Raise], [Monitor]), from when on everything is decided anew;
//   - a deadline, after which nothing is remembered, and which is renewed for as long as
//     somebody raises the number ([Keeper.Renew]).
//
// Nothing is pinned. Links end with flatnetd; filters stay and do nothing, until the next
// one's programs take their places. Meanwhile packets take the kernel's path.
package fastpath

import "time"

// Lifetime is how long a direction of a flow is remembered. Then one packet takes the way
// through the stack, so that connection tracking does not forget the flow, whose shortest
// time is the 30 seconds of UDP.
const Lifetime = 10 * time.Second

// Flows is how many can be remembered; beyond it those go that were not used the longest.
const Flows = 100_000

// AloneFor is how long the programs go by what they remember while nobody tells them that
// they still may; RenewedEvery is when they are told.
const (
	AloneFor     = 3 * time.Second
	RenewedEvery = time.Second
)
