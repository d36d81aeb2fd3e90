// The fast path: netfilter decides about a flow, and these programs remember it.
//
// look is at tc ingress of the interfaces of pods, of the underlay and of the overlay. A
// packet of a flow that is remembered in both directions goes to where the last ones of
// its direction went; any other goes up the stack as if there were no program.
//
// learn_pod and learn_link are at tc egress of the same interfaces. A packet that the
// rules of nftables have marked there has passed all of netfilter and of routing, and
// where it is about to go is remembered.
//
// What has to be known to read them:
//  - Both directions of a flow are one entry, and none is used without the other, which
//    has to be known under the same number and may be idle.
//  - A number is raised when anything changes that a decision may have come from. look
//    notes it in what goes up the stack (tc_index), and learn remembers nothing that was
//    decided under another one. tc_index is 0 where somebody else's program decides what
//    becomes of the packet: then nothing is learned either.
//  - The agent that raises it may be gone while the programs are not. So there is a
//    deadline, which it moves on; when that is over, all is the stack's. What is learned
//    meanwhile is never used: whoever moves the deadline on too late raises the number.
//  - The overlay's device is passed by as well (overlay.h).
//  - What is written into an entry that is in use is the time and the number only;
//    anything else is replaced as a whole, so nobody reads half of it.
//  - A packet larger than all that the stack has let pass is the stack's: so no MTU is
//    looked at here, and none can be wrong.
#include "overlay.h"

// MARK is that of marked packets; the same is in rules.go.
#define MARK 0x1000

SEC("tc/look")
int look(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *s = map_lookup(&setting, &zero);
	struct counts *c = map_lookup(&counted, &zero);
	if (!s || !c)
		return NEXT;
	__u32 generation = *(volatile __u32 *)&s->generation;
	struct packet p = {};
	if (skb->pkt_type || skb->vlan_present || !parse(skb, &p, skb->protocol, ETHERNET))
		return NEXT;
	if (p.key.protocol == UDP && (p.low ? p.key.high_port : p.key.low_port) == s->tunnel)
		return unwrap(skb, s, c, generation);
	skb->tc_index = (__u16)generation;
	struct flow *f = map_lookup(&flows, &p.key);
	if (!f)
		goto miss;
	struct way *way = p.low ? &f->from_low : &f->from_high, *back = p.low ? &f->from_high : &f->from_low;
	if (way->in != skb->ifindex)
		goto miss;
	if (p.flags & ENDS) {
		if (p.flags & SYN)
			map_delete(&flows, &p.key);
		else
			f->closing = 1;
		goto miss;
	}
	__u64 now;
	if (!usable(s, f, way, back, &p, generation, &now) || !forward(skb, way, &p))
		goto miss;

	// Nothing that can fail is below this line.
	c->hits++;
	__u32 out = way->out;
	if (out & PEER)
		return redirect_peer(out & ~PEER, 0);
	skb->priority = way->priority;
	if (out == s->overlay) {
		__u32 road = wrap(skb, s, way, &p, now);
		if (!road)
			return redirect(out, 0); // and by the number that it has, its road is learned
		c->wrapped++;
		out = road;
	}
	skb->tc_index = 0;
	return redirect(out, 0);
miss:
	c->misses++;
	return NEXT;
}

INLINE int same(const __u16 *a, const __u16 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

INLINE void learn(struct __sk_buff *skb, __u32 peer)
{
	__u32 zero = 0;
	struct settings *s = map_lookup(&setting, &zero);
	if (!s)
		return;
	__u32 generation = *(volatile __u32 *)&s->generation;
	__u32 in = skb->ingress_ifindex, out = skb->ifindex | peer;
	if (skb->tc_index != (__u16)generation || !in)
		return;
	struct packet p = {};
	if (skb->vlan_present || !parse(skb, &p, skb->protocol, ETHERNET) || p.flags & ENDS)
		return;
	struct ethernet *e = (void *)(long)skb->data;
	if ((void *)(e + 1) > (void *)(long)skb->data_end)
		return;
	__u64 now = ktime();
	struct flow *f = map_lookup(&flows, &p.key);
	struct flow fresh = {};
	if (f) {
		struct way *way = p.low ? &f->from_low : &f->from_high;
		if (way->expires && way->in == in) {
			if (f->closing)
				return;
			if (way->out == out && same(way->macs, e->macs)) {
				// A packet that was decided anew says nothing of larger ones.
				if (way->generation != generation || way->expires <= now || way->largest < p.size)
					way->largest = p.size;
				way->priority = skb->priority;
				way->expires = now + s->lifetime;
				way->generation = generation;
				return;
			}
			fresh = *f;
		} else if (!way->expires) {
			if (f->closing)
				return;
			fresh = *f;
		}
		// An interface that is another one is another pod's, or another network's:
		// nothing of before is true.
	}
	if (!fresh.since)
		fresh.since = now;
	struct way *way = p.low ? &fresh.from_low : &fresh.from_high;
	way->expires = now + s->lifetime;
	way->generation = generation;
	way->in = in;
	way->out = out;
	way->largest = p.size;
	way->priority = skb->priority;
	__builtin_memcpy(way->macs, e->macs, sizeof(way->macs));
	map_update(&flows, &p.key, &fresh, BPF_ANY);
	struct counts *c = map_lookup(&counted, &zero);
	if (c)
		c->learned++;
}

SEC("tc/learn_pod")
int learn_pod(struct __sk_buff *skb)
{
	if (skb->mark & MARK) {
		skb->mark &= ~MARK;
		learn(skb, PEER);
	}
	return NEXT;
}

SEC("tc/learn_link")
int learn_link(struct __sk_buff *skb)
{
	if (skb->mark & MARK) {
		skb->mark &= ~MARK;
		learn(skb, 0);
	} else {
		learn_road(skb);
	}
	return NEXT;
}

char _license[] SEC("license") = "GPL";
