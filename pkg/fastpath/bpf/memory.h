// What is remembered, and what the agent says.
#include "packet.h"

// way is what is remembered of one direction.
struct way {
	__u64 expires;    // in ktime; 0 where nothing is known
	__u64 packets, bytes;
	__u32 generation; // under which it was decided
	__u32 in, out;    // interfaces
	__u32 largest;    // packet that the stack has let pass, without Ethernet
	__u32 priority;
	__u16 macs[6];
};

struct flow {
	struct way from_low, from_high;
	__u64 since;
	__u32 closing; // TCP has sent FIN or RST: all is the stack's until there is a SYN
	__u32 zero;
};

// road is the way through the underlay to a node that is reached by the overlay: what the
// kernel puts before a packet, and where it goes then. All flows to the node have it.
struct road {
	__u64 expires;    // in ktime
	__u32 generation; // under which the kernel took it
	__u32 out;        // interface of the underlay
	__u32 largest;    // packet that the kernel has sent, without Ethernet
	__u32 source, destination;
	__u16 macs[6];
	__u16 fragment; // IP's flags
	__u8 tos, ttl;
	__u32 zero;
};

// node is the other end of a road: its MAC address in the overlay.
struct node {
	__u16 mac[3], zero;
};

struct counts {
	__u64 hits, misses;       // packets that could be forwarded so, and were or were not
	__u64 learned;            // directions
	__u64 wrapped, unwrapped; // of the hits, those that the programs and not the overlay's device did that to
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 100000);
	__type(key, struct key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct node);
	__type(value, struct road);
} roads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counted SEC(".maps");

// settings are written by the agent.
struct settings {
	__u32 generation; // its lower 16 bits are never 0
	__u16 tunnel;     // UDP port of the overlay, as in packets: what goes there is no pod's
	__u16 mac[3];     // of the overlay's interface
	__u32 overlay;    // interface, 0 for none where roads are remembered
	__u32 vni;        // with the byte behind it, as in packets
	__u32 address;    // this node's end of roads, as in packets
	__u16 first_port, ports; // those that packets of roads come from, and how many
	__u32 zero;
	__u64 lifetime; // of what is learned, in ns
	__u64 deadline; // in ktime; the agent moves it on, and without one nothing is remembered
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

// PEER is or'ed to the interface that a way leads out of: it is that of a pod.
#define PEER 0x80000000

// usable reports whether a packet, which neither begins nor ends a flow, may go by what is
// remembered, and what the time is then. The clock costs most of it, and is asked last.
INLINE int usable(struct settings *s, struct flow *f, struct way *way, struct way *back, struct packet *p, __u32 generation, __u64 *now)
{
	if (way->generation != generation || back->generation != generation || f->closing || p->size > way->largest || p->hops <= 1)
		return 0;
	*now = ktime();
	return way->expires > *now && s->deadline > *now;
}

// forward does to a packet what a router does, and counts it; it is 0 where that is not
// possible.
INLINE int forward(struct __sk_buff *skb, struct way *way, struct packet *p)
{
	struct ethernet *e = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	if (p->v6) {
		struct ip6 *ip = (void *)(e + 1);
		if ((void *)(ip + 1) > end)
			return 0;
		__u16 *hops = (__u16 *)&ip->next;
		__u32 before = *hops;
		ip->hops--;
		// Where a card has summed the whole packet, it is one less now; IPv6 has no
		// checksum of its own that would make up for it.
		csum_update(skb, (__u32)*hops + (~before & 0xffff));
	} else {
		struct ip *ip = (void *)(e + 1);
		if ((void *)(ip + 1) > end)
			return 0;
		__u32 sum = ip->checksum;
		sum += NET16(0x0100);
		ip->checksum = sum + (sum >= 0xffff);
		ip->ttl--;
	}
	__builtin_memcpy(e->macs, way->macs, sizeof(e->macs));
	way->packets++;
	way->bytes += skb->len - ETHERNET;
	return 1;
}
