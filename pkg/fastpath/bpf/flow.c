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
//  - What is written into an entry that is in use is the time and the number only;
//    anything else is replaced as a whole, so nobody reads half of it.
//  - A packet larger than all that the stack has let pass is the stack's: so no MTU is
//    looked at here, and none can be wrong.
#include <linux/types.h>
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*map_delete)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static __u64 (*ktime)(void) = (void *)BPF_FUNC_ktime_get_ns;
static long (*redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*redirect_peer)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect_peer;
static long (*pull_data)(struct __sk_buff *skb, __u32 len) = (void *)BPF_FUNC_skb_pull_data;
static __s64 (*csum_update)(struct __sk_buff *skb, __u32 csum) = (void *)BPF_FUNC_csum_update;

// NET16 is a number as it is in packets; FIRST4 is one that begins with the bytes of another.
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NET16(x) ((__u16)__builtin_bswap16(x))
#define FIRST4(x) ((__u64)(x))
#else
#define NET16(x) ((__u16)(x))
#define FIRST4(x) ((__u64)(x) << 32)
#endif

#define NEXT (-1) // TC_ACT_UNSPEC, and TCX_NEXT: what comes behind decides

#define PROTOCOL_IP NET16(0x0800)
#define PROTOCOL_IPV6 NET16(0x86dd)
#define TCP 6
#define UDP 17
#define FIN 1
#define SYN 2
#define RST 4
#define ETHERNET 14

// MARK is that of marked packets; the same is in rules.go.
#define MARK 0x1000

struct ethernet {
	__u16 macs[6]; // destination, source
	__u16 protocol;
} __attribute__((packed));

struct ip {
	__u8 version_length, tos;
	__u16 length, id, fragment;
	__u8 ttl, protocol;
	__u16 checksum;
	__u32 source, destination;
};

struct ip6 {
	__u32 flow;
	__u16 length;
	__u8 next, hops;
	__u64 source[2], destination[2];
} __attribute__((packed, aligned(2)));

// ports is the beginning of TCP and of UDP; what follows is TCP's.
struct ports {
	__u16 source, destination;
	__u32 sequence, acknowledged;
	__u8 offset, flags;
};

// key is the same for both directions: the end whose address, or else port, is less comes
// first. IPv4 addresses are in the first four bytes.
struct key {
	__u64 low[2], high[2];
	__u16 low_port, high_port;
	__u8 protocol, family, zero[2];
};

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

struct counts {
	__u64 hits, misses; // packets that could be forwarded so, and were or were not
	__u64 learned;      // directions
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 100000);
	__type(key, struct key);
	__type(value, struct flow);
} flows SEC(".maps");

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
	__u16 pad;
	__u64 lifetime; // of what is learned, in ns
	__u64 deadline; // in ktime; the agent moves it on, and without one nothing is remembered
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

// packet is what look and learn have to know of one.
struct packet {
	struct key key;
	__u32 size; // of the packet, or of each that a large one is cut into, without Ethernet
	__u8 flags; // of TCP
	__u8 low;   // the source is the lower end
	__u8 v6;
	__u8 hops;
};

// reach finds what follows a header of IP, and has its beginning in reach; it is 0 as parse
// is. The header's length has to be a constant, for the verifier.
INLINE int reach(struct __sk_buff *skb, __u32 header, struct ports **ports)
{
	*ports = (void *)(long)skb->data + ETHERNET + header;
	// UDP may be shorter than what is read of TCP.
	if ((void *)&(*ports)->sequence <= (void *)(long)skb->data_end)
		return 1;
	__u32 needed = ETHERNET + header + sizeof(**ports);
	if (pull_data(skb, skb->len < needed ? skb->len : needed))
		return 0;
	*ports = (void *)(long)skb->data + ETHERNET + header;
	return (void *)&(*ports)->sequence <= (void *)(long)skb->data_end;
}

// transport reads TCP's or UDP's header. Length is that of the packet, as IP says; it is 0
// as parse is.
INLINE int transport(struct __sk_buff *skb, struct packet *p, struct ports *ports, __u32 header, __u32 length)
{
	__u32 inner = 8;
	if (p->key.protocol == TCP) {
		if ((void *)(ports + 1) > (void *)(long)skb->data_end)
			return 0;
		p->flags = ports->flags;
		inner = (ports->offset >> 4) * 4;
	} else if (p->key.protocol != UDP) {
		return 0;
	}
	p->size = length;
	if (skb->gso_size)
		p->size = header + inner + skb->gso_size;
	else if (length > skb->len - ETHERNET || length < header + inner)
		return 0;
	return 1;
}

// order puts the ends of a packet into its key.
INLINE void order(struct packet *p, __u64 s0, __u64 s1, __u64 d0, __u64 d1, struct ports *ports)
{
	__u16 from = ports->source, to = ports->destination;
	p->low = s0 < d0 || (s0 == d0 && (s1 < d1 || (s1 == d1 && from < to)));
	if (p->low) {
		p->key.low[0] = s0;
		p->key.low[1] = s1;
		p->key.high[0] = d0;
		p->key.high[1] = d1;
		p->key.low_port = from;
		p->key.high_port = to;
	} else {
		p->key.low[0] = d0;
		p->key.low[1] = d1;
		p->key.high[0] = s0;
		p->key.high[1] = s1;
		p->key.low_port = to;
		p->key.high_port = from;
	}
}

// parse reads a packet; it is 0 where the packet is not one that is ever remembered.
INLINE int parse(struct __sk_buff *skb, struct packet *p)
{
	struct ports *ports;
	if (skb->vlan_present)
		return 0;
	if (skb->protocol == PROTOCOL_IP) {
		if (!reach(skb, sizeof(struct ip), &ports))
			return 0;
		struct ip *ip = (void *)ports - sizeof(*ip);
		if (ip->version_length != 0x45 || ip->fragment & NET16(0x3fff))
			return 0;
		p->key.family = 4;
		p->key.protocol = ip->protocol;
		p->hops = ip->ttl;
		if (!transport(skb, p, ports, sizeof(*ip), NET16(ip->length)))
			return 0;
		order(p, FIRST4(ip->source), 0, FIRST4(ip->destination), 0, ports);
		return 1;
	}
	if (skb->protocol == PROTOCOL_IPV6) {
		if (!reach(skb, sizeof(struct ip6), &ports))
			return 0;
		struct ip6 *ip = (void *)ports - sizeof(*ip);
		p->key.family = 6;
		p->v6 = 1;
		p->key.protocol = ip->next;
		p->hops = ip->hops;
		if (!transport(skb, p, ports, sizeof(*ip), NET16(ip->length) + sizeof(*ip)))
			return 0;
		order(p, ip->source[0], ip->source[1], ip->destination[0], ip->destination[1], ports);
		return 1;
	}
	return 0;
}

// PEER is or'ed to the interface that a way leads out of: it is that of a pod.
#define PEER 0x80000000

SEC("tc/look")
int look(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *s = map_lookup(&setting, &zero);
	if (!s)
		return NEXT;
	__u32 generation = *(volatile __u32 *)&s->generation;
	struct packet p = {};
	if (skb->pkt_type || !parse(skb, &p))
		return NEXT;
	if (p.key.protocol == UDP && (p.low ? p.key.high_port : p.key.low_port) == s->tunnel)
		return NEXT;
	skb->tc_index = (__u16)generation;
	struct flow *f = map_lookup(&flows, &p.key);
	struct counts *c = map_lookup(&counted, &zero);
	if (!c)
		return NEXT;
	if (!f)
		goto miss;
	struct way *way = &f->from_low, *back = &f->from_high;
	if (!p.low) {
		way = &f->from_high;
		back = &f->from_low;
	}
	if (way->in != skb->ifindex)
		goto miss;
	if (p.flags & (FIN | SYN | RST)) {
		if (p.flags & SYN)
			map_delete(&flows, &p.key);
		else
			f->closing = 1;
		goto miss;
	}
	if (way->generation != generation || back->generation != generation || f->closing ||
	    p.size > way->largest || p.hops <= 1)
		goto miss;
	__u64 now = ktime();
	if (way->expires <= now || s->deadline <= now)
		goto miss;

	// Nothing that can fail is below this line.
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet *e = data;
	if (p.v6) {
		struct ip6 *ip = (void *)(e + 1);
		if ((void *)(ip + 1) > end)
			goto miss;
		__u16 *hops = (__u16 *)&ip->next;
		__u32 before = *hops;
		ip->hops--;
		// Where a card has summed the whole packet, it is one less now; IPv6 has no
		// checksum of its own that would make up for it.
		csum_update(skb, (__u32)*hops + (~before & 0xffff));
	} else {
		struct ip *ip = (void *)(e + 1);
		if ((void *)(ip + 1) > end)
			goto miss;
		__u32 sum = ip->checksum;
		sum += NET16(0x0100);
		ip->checksum = sum + (sum >= 0xffff);
		ip->ttl--;
	}
	__builtin_memcpy(e->macs, way->macs, sizeof(e->macs));
	c->hits++;
	way->packets++;
	way->bytes += skb->len - ETHERNET;
	__u32 out = way->out;
	if (out & PEER)
		return redirect_peer(out & ~PEER, 0);
	skb->priority = way->priority;
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
	if (!parse(skb, &p) || p.flags & (FIN | SYN | RST))
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
	}
	return NEXT;
}

char _license[] SEC("license") = "GPL";
