// The overlay: packets are wrapped and unwrapped without its device, the stack below it and
// netfilter, which decide about all flows to a node alike. What they put before a packet is
// learned where it leaves by the underlay.
#include "memory.h"

// outer is what VXLAN puts before a packet (RFC 7348, section 5), and then Ethernet's header.
struct outer {
	struct ip ip;
	__u16 source, destination, length, checksum; // UDP
	__u32 flags, vni;
};
#define WRAPPING ((__u32)(sizeof(struct outer) + ETHERNET))
#define VNI_IS_THERE NET32(0x08000000)

#define ADJUST_KIND_5_10 (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETHERNET))
#define ADJUST_KIND (ADJUST_KIND_5_10 | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
#define UNWRAP_IPV6 (1ULL << 8) // BPF_F_ADJ_ROOM_DECAP_L3_IPV6, from Linux 6.3

INLINE int current(struct road *r, __u32 generation)
{
	return r && r->generation == generation;
}

// wrap puts a packet that goes to a node into one of the underlay, and says by which
// interface it goes then; 0 is that the overlay's own has to do that, and the packet is as
// it was.
INLINE __u32 wrap(struct __sk_buff *skb, struct settings *s, struct way *way, struct packet *p, __u64 now)
{
	struct node node = {{way->macs[0], way->macs[1], way->macs[2]}};
	struct road *r = map_lookup(&roads, &node);
	if (!current(r, way->generation) || r->expires <= now || p->size + WRAPPING > r->largest)
		return 0;
	__u32 length = skb->len - ETHERNET + WRAPPING;
	if (length > 0xffff)
		return 0;
	__u32 hash = get_hash(skb);
	hash ^= hash << 16;
	// The protocol of what is wrapped is told from Linux 5.13 on; before it is guessed right.
	if (adjust_room(skb, WRAPPING, BPF_ADJ_ROOM_MAC, ADJUST_KIND) && adjust_room(skb, WRAPPING, BPF_ADJ_ROOM_MAC, ADJUST_KIND_5_10))
		return 0;
	struct ethernet *e = (void *)(long)skb->data;
	struct outer *o = (void *)(e + 1);
	struct ethernet *inner = (void *)(o + 1);
	if ((void *)(inner + 1) > (void *)(long)skb->data_end)
		return 0; // cannot be, but the verifier does not know
	__builtin_memcpy(inner->macs, way->macs, sizeof(inner->macs));
	inner->protocol = p->v6 ? PROTOCOL_IPV6 : PROTOCOL_IP;
	o->flags = VNI_IS_THERE;
	o->vni = s->vni;
	// As the kernel chooses it, so that packets of one flow keep to one way.
	__u16 port = ((__u64)hash * s->ports >> 32) + s->first_port;
	o->source = NET16(port);
	o->destination = s->tunnel;
	__u16 length_of_udp = length - sizeof(struct ip);
	o->length = NET16(length_of_udp);
	o->checksum = 0;
	o->ip.version_length = 0x45;
	o->ip.tos = r->tos | (p->ecn == CONGESTED ? 2 : p->ecn); // RFC 6040, compatibility mode of RFC 3168
	o->ip.length = NET16((__u16)length);
	o->ip.id = any_number();
	o->ip.fragment = r->fragment;
	o->ip.ttl = r->ttl;
	o->ip.protocol = UDP;
	o->ip.checksum = 0;
	o->ip.source = r->source;
	o->ip.destination = r->destination;
	__u16 *word = (void *)o;
	__u32 sum = word[0] + word[1] + word[2] + word[3] + word[4] + word[6] + word[7] + word[8] + word[9];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	o->ip.checksum = ~sum;
	__builtin_memcpy(e->macs, r->macs, sizeof(e->macs));
	e->protocol = PROTOCOL_IP;
	return r->out;
}

// wrapped finds what the overlay has put before a packet; it is 0 where it is not this one.
INLINE struct outer *wrapped(struct __sk_buff *skb, struct settings *s)
{
	struct outer *o = (void *)(long)skb->data + ETHERNET;
	if (skb->protocol != PROTOCOL_IP || (void *)o + WRAPPING > (void *)(long)skb->data_end ||
	    o->ip.version_length != 0x45 || o->ip.fragment & NET16(0x3fff) || o->ip.protocol != UDP ||
	    o->destination != s->tunnel || o->checksum || o->flags != VNI_IS_THERE || o->vni != s->vni)
		return 0;
	return o;
}

// unwrap has a packet of a flow that is remembered go from the underlay to a pod; it is
// NEXT for all others, which are as they were. What is larger than packets are (GSO) is the
// device's, which alone can say that it is wrapped no longer.
INLINE int unwrap(struct __sk_buff *skb, struct settings *s, struct counts *c, __u32 generation)
{
	if (!s->overlay || skb->gso_size)
		return NEXT;
	if ((void *)(long)skb->data + ETHERNET + WRAPPING > (void *)(long)skb->data_end && pull_data(skb, ETHERNET + WRAPPING))
		return NEXT;
	struct outer *o = wrapped(skb, s);
	if (!o)
		return NEXT;
	struct ethernet *inner = (void *)(o + 1);
	__u16 protocol = inner->protocol;
	if (o->ip.destination != s->address || (o->ip.tos & ECN) == CONGESTED || NET16(o->ip.length) != skb->len - ETHERNET ||
	    NET16(o->length) != skb->len - ETHERNET - sizeof(struct ip) ||
	    inner->macs[0] != s->mac[0] || inner->macs[1] != s->mac[1] || inner->macs[2] != s->mac[2])
		return NEXT;
	// Who may send wrapped packets to this node, rules of nftables say. What is sent to a
	// node and comes from there is of a flow that they have let pass in both directions.
	struct node node = {{inner->macs[3], inner->macs[4], inner->macs[5]}};
	struct road *r = map_lookup(&roads, &node);
	if (!current(r, generation) || r->destination != o->ip.source || r->out != skb->ifindex)
		return NEXT;
	struct packet p = {};
	if (!parse(skb, &p, protocol, ETHERNET + WRAPPING) || p.flags & ENDS)
		return NEXT;
	struct flow *f = map_lookup(&flows, &p.key);
	if (!f)
		return NEXT;
	struct way *way = p.low ? &f->from_low : &f->from_high, *back = p.low ? &f->from_high : &f->from_low;
	__u64 now;
	if (way->in != s->overlay || !(way->out & PEER) || !usable(s, f, way, back, &p, generation, &now))
		return NEXT;
	if (adjust_room(skb, -(__s32)WRAPPING, BPF_ADJ_ROOM_MAC, p.v6 ? UNWRAP_IPV6 : 0))
		return NEXT;
	struct ethernet *e = (void *)(long)skb->data;
	if ((void *)(e + 1) > (void *)(long)skb->data_end)
		return DROP;
	e->protocol = protocol;
	if (!forward(skb, way, &p))
		return DROP;
	c->hits++;
	c->unwrapped++;
	return redirect_peer(way->out & ~PEER, 0);
}

// learn_road remembers what the overlay's device has put before a packet that goes to a node.
// It was decided under the present number, since it has it (see learn).
INLINE void learn_road(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *s = map_lookup(&setting, &zero);
	if (!s || !s->overlay)
		return;
	__u32 generation = *(volatile __u32 *)&s->generation;
	if (skb->tc_index != (__u16)generation || skb->vlan_present)
		return;
	struct outer *o = wrapped(skb, s);
	if (!o || o->ip.source != s->address)
		return;
	struct packet p = {};
	if (!parse(skb, &p, ((struct ethernet *)(o + 1))->protocol, ETHERNET + WRAPPING))
		return;
	struct ethernet *e = (void *)(long)skb->data;
	o = (void *)(e + 1);
	struct ethernet *inner = (void *)(o + 1);
	if ((void *)(inner + 1) > (void *)(long)skb->data_end)
		return;
	__u64 now = ktime();
	struct node node = {{inner->macs[0], inner->macs[1], inner->macs[2]}};
	struct road *before = map_lookup(&roads, &node);
	// What the device goes on wrapping, of flows that begin or end, tells nothing new.
	if (current(before, generation) && before->largest >= p.size + WRAPPING && before->expires > now + s->lifetime / 2)
		return;
	struct road fresh = {
		.expires = now + s->lifetime, .generation = generation, .out = skb->ifindex, .largest = p.size + WRAPPING,
		.source = o->ip.source, .destination = o->ip.destination, .fragment = o->ip.fragment,
		.tos = o->ip.tos & ~ECN, .ttl = o->ip.ttl,
	};
	__builtin_memcpy(fresh.macs, e->macs, sizeof(fresh.macs));
	if (current(before, generation) && before->expires > now && before->largest > fresh.largest)
		fresh.largest = before->largest;
	map_update(&roads, &node, &fresh, BPF_ANY);
}
