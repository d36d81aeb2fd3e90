// Packets: how they look, and how they are read.
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
static long (*adjust_room)(struct __sk_buff *skb, __s32 difference, __u32 mode, __u64 flags) = (void *)BPF_FUNC_skb_adjust_room;
static __u32 (*get_hash)(struct __sk_buff *skb) = (void *)BPF_FUNC_get_hash_recalc;
static __u32 (*any_number)(void) = (void *)BPF_FUNC_get_prandom_u32;
static __s64 (*csum_update)(struct __sk_buff *skb, __u32 csum) = (void *)BPF_FUNC_csum_update;

// NET16 and NET32 are numbers as they are in packets; FIRST4 is one that begins with the bytes of another.
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NET16(x) ((__u16)__builtin_bswap16(x))
#define NET32(x) ((__u32)__builtin_bswap32(x))
#define FIRST4(x) ((__u64)(x))
#else
#define NET16(x) ((__u16)(x))
#define NET32(x) ((__u32)(x))
#define FIRST4(x) ((__u64)(x) << 32)
#endif

#define NEXT (-1) // TC_ACT_UNSPEC, and TCX_NEXT: what comes behind decides
#define DROP 2    // TC_ACT_SHOT, for what cannot happen, as only the verifier does not know

#define PROTOCOL_IP NET16(0x0800)
#define PROTOCOL_IPV6 NET16(0x86dd)
#define TCP 6
#define UDP 17
#define FIN 1
#define SYN 2
#define RST 4
#define ENDS (FIN | SYN | RST) // of a connection
#define ECN 3 // of the type of service
#define CONGESTED 3
#define ETHERNET 14

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

// packet is what look and learn have to know of one.
struct packet {
	struct key key;
	__u32 size; // of the packet, or of each that a large one is cut into, without Ethernet
	__u8 flags; // of TCP
	__u8 low;   // the source is the lower end
	__u8 v6;
	__u8 hops;
	__u8 ecn;
};

// reach finds what is behind some headers, and has its beginning in reach; it is 0 as parse
// is. Their length has to be a constant, for the verifier.
INLINE int reach(struct __sk_buff *skb, __u32 before, struct ports **ports)
{
	*ports = (void *)(long)skb->data + before;
	// UDP may be shorter than what is read of TCP.
	if ((void *)&(*ports)->sequence <= (void *)(long)skb->data_end)
		return 1;
	__u32 needed = before + sizeof(**ports);
	if (pull_data(skb, skb->len < needed ? skb->len : needed))
		return 0;
	*ports = (void *)(long)skb->data + before;
	return (void *)&(*ports)->sequence <= (void *)(long)skb->data_end;
}

// transport reads TCP's or UDP's header. Length is that of the packet, as IP says, and room
// is how much of it there is; it is 0 as parse is.
INLINE int transport(struct __sk_buff *skb, struct packet *p, struct ports *ports, __u32 header, __u32 length, __u32 room)
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
	else if (length > room || length < header + inner)
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

// parse reads a packet of a protocol, which begins behind some headers; it is 0 where the
// packet is not one that is ever remembered.
INLINE int parse(struct __sk_buff *skb, struct packet *p, __u16 protocol, __u32 before)
{
	struct ports *ports;
	if (protocol == PROTOCOL_IP) {
		if (!reach(skb, before + sizeof(struct ip), &ports))
			return 0;
		struct ip *ip = (void *)ports - sizeof(*ip);
		if (ip->version_length != 0x45 || ip->fragment & NET16(0x3fff))
			return 0;
		p->key.family = 4;
		p->key.protocol = ip->protocol;
		p->hops = ip->ttl;
		p->ecn = ip->tos & ECN;
		if (!transport(skb, p, ports, sizeof(*ip), NET16(ip->length), skb->len - before))
			return 0;
		order(p, FIRST4(ip->source), 0, FIRST4(ip->destination), 0, ports);
		return 1;
	}
	if (protocol == PROTOCOL_IPV6) {
		if (!reach(skb, before + sizeof(struct ip6), &ports))
			return 0;
		struct ip6 *ip = (void *)ports - sizeof(*ip);
		p->key.family = 6;
		p->v6 = 1;
		p->key.protocol = ip->next;
		p->hops = ip->hops;
		p->ecn = NET16(*(__u16 *)ip) >> 4 & ECN;
		if (!transport(skb, p, ports, sizeof(*ip), NET16(ip->length) + sizeof(*ip), skb->len - before))
			return 0;
		order(p, ip->source[0], ip->source[1], ip->destination[0], ip->destination[1], ports);
		return 1;
	}
	return 0;
}
