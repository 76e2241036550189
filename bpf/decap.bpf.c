// SPDX-License-Identifier: GPL-2.0
/*
 * The tunnel end of a TUN real server: takes the outer headers (IP in IP, GRE, GUE) off
 * packets that a director sent to this server, and hands the inner ones to the stack.
 *
 * Only packets from a tunnel to one of the server's own addresses, holding a packet to
 * one of the VIPs, are touched; everything else passes as it came, so that other
 * tunnels of the machine keep working.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_FRAGMENT    0x3fff /* more-fragments bit and offset */
#define ECN_MASK       3
#define ECN_CE	       3
#define MOST_ADDRESSES 1024
#define MOST_PORTS     16
#define CHUNK	       64
#define CHUNKS	       160 /* 10,240 bytes: more than a jumbo frame */
/* GRE (RFC 2784), GUE (linux/net/gue.h): see bpf/forward/gre.h and gue.h. */
#define GRE_CHECKSUM	 0x8000
#define GUE_PRIVATE	 0x0001
#define GUE_REMOTE_CHECK 0x80000000u
#define FURTHEST	 255 /* mask: no outer header, nor what it points at, begins later */

/* An address of either family: IPv4 as ::ffff:a.b.c.d, network order. */
struct address {
	__be32 word[4];
};

/* Indexes of `counters`; src/xlvs/realserver/decap.py has the same names in the same order. */
enum counter {
	DECAPSULATED,	    /* handed to the stack without the outer header */
	DECAPSULATED_BYTES, /* their inner IP lengths */
	FRAGMENTS,	    /* outer fragments: left to the kernel */
	FOREIGN_OUTER,	    /* a tunnel that does not end at one of our addresses */
	FOREIGN_INNER,	    /* tunnelled, but not to a VIP */
	MALFORMED, /* tunnelled, but the inner packet is cut short or of the wrong version */
	CONGESTION_DROPPED, /* outer says congested, inner cannot say so (RFC 6040) */
	CHECKSUM_WRONG,	    /* GRE's or UDP's: dropped */
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MOST_ADDRESSES);
	__type(key, struct address);
	__type(value, __u8);
} tunnel_ends SEC(".maps"), vips SEC(".maps");

/* Ports that GUE comes in by, in wire order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MOST_PORTS);
	__type(key, __be16);
	__type(value, __u8);
} gue_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* What the outer headers say. Offsets are in the frame. */
struct outer {
	struct address destination;
	__u32 end;	     /* of the outer headers: where the inner packet begins */
	__u32 ip_end;	     /* of the outer IP header ... */
	__u32 payload;	     /* ... and how many bytes it says follow */
	__u32 pseudo;	     /* folded sum of the addresses and the protocol */
	__u8 protocol;	     /* IPIP, IPV6, GRE or UDP */
	__u8 inner_protocol; /* IPPROTO_IPIP or IPPROTO_IPV6 */
	__u8 ecn;
	bool summed;	    /* there is a checksum to verify */
	__u16 remote_start; /* offsets in the inner packet: what to sum up, and where ... */
	__u16 remote_field; /* ... to put the checksum; 0: it is whole */
};

static __always_inline void count(__u32 which, __u64 by)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		*value += by;
}

static __always_inline int pass(__u32 why)
{
	count(why, 1);
	return XDP_PASS;
}

static __always_inline struct address mapped(__be32 ipv4)
{
	struct address address = { { 0, 0, bpf_htonl(0xffff), ipv4 } };

	return address;
}

static __always_inline struct address native(const struct in6_addr *ipv6)
{
	struct address address;

	__builtin_memcpy(&address, ipv6, sizeof(address));
	return address;
}

static __always_inline __u8 ipv6_ecn(const struct ipv6hdr *ip6)
{
	return ip6->flow_lbl[0] >> 4 & ECN_MASK;
}

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/*
 * The folded sum of length bytes from offset on, added to seed. A global function: verified
 * once, its bounds checked at every step.
 */
__noinline __u32 sum_range(struct xdp_md *context, __u32 offset, __u32 length, __u32 seed)
{
	/* The last chunk is never empty: 6.1's verifier cannot follow a test for zero. */
	__u32 rest = ((length - 1) & (CHUNK - 1)) + 1, chunks = (length - 1) / CHUNK;
	__be32 bytes[CHUNK / 4] = {};
	__s64 sum = seed;

	if (!length)
		return seed;
	for (__u32 i = 0; i < CHUNKS; i++) {
		if (i >= chunks)
			break;
		if (bpf_xdp_load_bytes(context, offset, bytes, CHUNK))
			return 0;
		sum = bpf_csum_diff(0, 0, bytes, CHUNK, fold(sum));
		offset += CHUNK;
	}
	__builtin_memset(bytes, 0, sizeof(bytes));
	if (bpf_xdp_load_bytes(context, offset, bytes, rest))
		return 0;
	return fold(bpf_csum_diff(0, 0, bytes, CHUNK, fold(sum)));
}

/* Read the outer IP header; false where it is none that a tunnel could have. */
static __always_inline bool read_ip(void *data, void *end, struct outer *outer, bool *fragment)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if ((void *)(ip + 1) > end)
		return false;
	outer->ip_end = sizeof(*eth);
	if (eth->h_proto == bpf_htons(ETH_P_IP) && ip->version == 4 && ip->ihl >= 5) {
		outer->protocol = ip->protocol;
		outer->ip_end += ip->ihl * 4;
		outer->payload = bpf_ntohs(ip->tot_len) - ip->ihl * 4;
		outer->ecn = ip->tos & ECN_MASK;
		outer->destination = mapped(ip->daddr);
		outer->pseudo = fold((__u64)ip->saddr + ip->daddr + bpf_htons(ip->protocol));
		*fragment = ip->frag_off & bpf_htons(IP_FRAGMENT);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		outer->protocol = ip6->nexthdr;
		outer->ip_end += sizeof(*ip6);
		outer->payload = bpf_ntohs(ip6->payload_len);
		outer->ecn = ipv6_ecn(ip6);
		outer->destination = native(&ip6->daddr);
		outer->pseudo = fold(
			bpf_csum_diff(0, 0, (__be32 *)&ip6->saddr, 32, bpf_htons(ip6->nexthdr)));
		*fragment = false; /* a fragment header is another nexthdr: no tunnel for us */
	} else {
		return false;
	}
	outer->end = outer->ip_end;
	outer->inner_protocol = outer->protocol;
	return true;
}

/* A GRE header as IPVS's directors send it: no key, no sequence number. */
static __always_inline bool read_gre(void *data, void *end, struct outer *outer)
{
	__be16 *word = data + (outer->ip_end & FURTHEST);

	if ((void *)(word + 4) > end) /* a whole IP header comes behind it anyway */
		return false;
	if (word[0] & bpf_htons(~GRE_CHECKSUM & 0xffff))
		return false;
	outer->summed = word[0];
	outer->end += outer->summed ? 8 : 4;
	if (word[1] == bpf_htons(ETH_P_IP))
		outer->inner_protocol = IPPROTO_IPIP;
	else if (word[1] == bpf_htons(ETH_P_IPV6))
		outer->inner_protocol = IPPROTO_IPV6;
	else
		return false;
	return true;
}

/* GUE's private option: the sender left the inner checksum to us. */
static __always_inline bool read_remote(void *data, void *end, struct outer *outer)
{
	__be32 *flags = data + ((outer->ip_end + sizeof(struct udphdr) + 4) & FURTHEST);
	__be16 *places = (void *)(flags + 1);

	if ((void *)(flags + 2) > end || *flags & ~bpf_htonl(GUE_REMOTE_CHECK))
		return false;
	if (!*flags)
		return true;
	outer->remote_start = bpf_ntohs(places[0]);
	outer->remote_field = bpf_ntohs(places[1]);
	return outer->remote_field >= outer->remote_start && outer->remote_field <= 126 &&
	       !(outer->remote_field & 1);
}

/* UDP and GUE headers: version 0, data, with no options but the private one. */
static __always_inline bool read_gue(void *data, void *end, struct outer *outer)
{
	struct udphdr *udp = data + (outer->ip_end & FURTHEST);
	__u8 *gue = (void *)(udp + 1);
	__be16 *flags = (void *)(gue + 2), port;
	__u32 words;

	if ((void *)(gue + 4) > end)
		return false;
	port = udp->dest;
	if (!bpf_map_lookup_elem(&gue_ports, &port))
		return false;
	words = gue[0]; /* length of the options; any higher bit is another version, or control */
	outer->inner_protocol = gue[1];
	outer->payload = bpf_ntohs(udp->len);
	outer->pseudo = fold((__u64)outer->pseudo + udp->len);
	/* Just the pseudo-header's sum: the sender's offload, never on a wire. */
	outer->summed = udp->check && udp->check != outer->pseudo;
	outer->end += sizeof(*udp) + 4 + words * 4;
	if (words != (*flags ? 2 : 0) || *flags & ~bpf_htons(GUE_PRIVATE))
		return false;
	return !*flags || read_remote(data, end, outer);
}

/* Read the outer headers; false where the packet is no tunnel packet at all. */
static __always_inline bool read_outer(void *data, void *end, struct outer *outer, bool *fragment)
{
	if (!read_ip(data, end, outer, fragment))
		return false;
	if (outer->protocol == IPPROTO_GRE && !*fragment)
		return read_gre(data, end, outer);
	if (outer->protocol == IPPROTO_UDP)
		return !*fragment && read_gue(data, end, outer) &&
		       (outer->inner_protocol == IPPROTO_IPIP ||
			outer->inner_protocol == IPPROTO_IPV6);
	return outer->protocol == IPPROTO_IPIP || outer->protocol == IPPROTO_IPV6 ||
	       outer->protocol == IPPROTO_GRE;
}

/* What an inner transport checksum is over, and where it stands in the frame; 0: there is none. */
static __always_inline __u32 check_place(struct xdp_md *context, const struct outer *outer,
					 __u32 *pseudo)
{
	struct iphdr ip = {};
	struct ipv6hdr ip6 = {};
	__u32 at, length;
	__u8 protocol;

	if (outer->inner_protocol == IPPROTO_IPIP) {
		if (bpf_xdp_load_bytes(context, outer->end, &ip, sizeof(ip)))
			return 0;
		protocol = ip.protocol;
		at = outer->end + ip.ihl * 4;
		length = bpf_ntohs(ip.tot_len) - ip.ihl * 4;
		*pseudo = fold((__u64)ip.saddr + ip.daddr);
	} else {
		if (bpf_xdp_load_bytes(context, outer->end, &ip6, sizeof(ip6)))
			return 0;
		protocol = ip6.nexthdr;
		at = outer->end + sizeof(ip6);
		length = bpf_ntohs(ip6.payload_len);
		*pseudo = fold(bpf_csum_diff(0, 0, (__be32 *)&ip6.saddr, 32, 0));
	}
	*pseudo = fold((__u64)*pseudo + bpf_htons(protocol) + bpf_htons(length));
	return protocol == IPPROTO_TCP ? at + 16 : protocol == IPPROTO_UDP ? at + 6 : 0;
}

/*
 * Whether the inner checksum is the pseudo-header's sum alone: the sender left it to hardware,
 * and this packet has seen none, for it came from this very machine.
 */
static __always_inline bool inner_partial(struct xdp_md *context, const struct outer *outer)
{
	__u32 pseudo, place = check_place(context, outer, &pseudo);
	__u16 check;

	return place && !bpf_xdp_load_bytes(context, place, &check, sizeof(check)) &&
	       check == pseudo;
}

/* Whether GRE's or UDP's checksum is right, or will be once the inner one is computed. */
static __always_inline bool intact(struct xdp_md *context, const struct outer *outer)
{
	__u32 seed = outer->protocol == IPPROTO_UDP ? outer->pseudo : 0;

	return sum_range(context, outer->ip_end, outer->payload, seed) == 0xffff ||
	       inner_partial(context, outer);
}

/*
 * Compute the inner checksum, whose field has the pseudo-header's sum so far; false where
 * the option points out of the packet. 0 would mean none to UDP, and to TCP ones are the same.
 */
static __always_inline bool complete(struct xdp_md *context, const struct outer *outer,
				     __u32 length)
{
	__u32 start = outer->remote_start;
	__be16 *field;
	__u16 check;

	if (start >= length)
		return false;
	check = ~(__u16)sum_range(context, outer->end + start, length - start, 0);
	field = (void *)(long)context->data + ((outer->end + outer->remote_field) & FURTHEST);
	if ((void *)(field + 1) > (void *)(long)context->data_end)
		return false;
	*field = check ? check : 0xffff;
	return true;
}

/* The inner IPv4 packet's destination and length; false where there is no whole header. */
static __always_inline bool read_inner4(struct iphdr *ip, void *end, struct address *destination,
					__u32 *length)
{
	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return false;
	*destination = mapped(ip->daddr);
	*length = bpf_ntohs(ip->tot_len);
	return true;
}

static __always_inline bool read_inner6(struct ipv6hdr *ip6, void *end, struct address *destination,
					__u32 *length)
{
	if ((void *)(ip6 + 1) > end || ip6->version != 6)
		return false;
	*destination = native(&ip6->daddr);
	*length = sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
	return true;
}

/* Carry a congestion mark inward (RFC 6040); false where the inner packet must be dropped. */
static __always_inline bool mark4(struct iphdr *ip)
{
	__u32 sum;

	if (!(ip->tos & ECN_MASK))
		return false;
	/* RFC 1624: HC' = ~(~HC + ~m + m'), the word being version, ihl and tos. */
	sum = (__u16)~bpf_ntohs(ip->check) + (__u16)~ip->tos + (ip->tos | ECN_CE);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = bpf_htons(~sum);
	ip->tos |= ECN_CE;
	return true;
}

static __always_inline bool mark6(struct ipv6hdr *ip6)
{
	if (!ipv6_ecn(ip6))
		return false;
	ip6->flow_lbl[0] |= ECN_CE << 4;
	return true;
}

/* Whether there is a whole inner packet to a VIP: -1, else the verdict. */
static __always_inline int examine_inner(void *inner, void *end, const struct outer *outer,
					 __u32 *length)
{
	bool ipv4 = outer->inner_protocol == IPPROTO_IPIP;
	struct address destination;

	if (ipv4 ? !read_inner4(inner, end, &destination, length)
		 : !read_inner6(inner, end, &destination, length))
		return pass(MALFORMED);
	/* Not `inner + *length > end`: 6.1's verifier loses the bounds of a byte-swapped number. */
	if (*length > (__u32)(end - inner))
		return pass(MALFORMED);
	return bpf_map_lookup_elem(&vips, &destination) ? -1 : pass(FOREIGN_INNER);
}

/* Carry a congestion mark inward; false where the inner packet cannot have it. */
static __always_inline bool mark_inner(struct xdp_md *context, const struct outer *outer)
{
	void *inner = (void *)(long)context->data + (outer->end & FURTHEST);
	void *end = (void *)(long)context->data_end;
	struct iphdr *ip = inner;
	struct ipv6hdr *ip6 = inner;

	if (outer->ecn != ECN_CE)
		return true;
	if (outer->inner_protocol == IPPROTO_IPIP)
		return (void *)(ip + 1) <= end && mark4(ip);
	return (void *)(ip6 + 1) <= end && mark6(ip6);
}

/* Take the outer headers off; what the packet is now goes into the Ethernet header. */
static __always_inline bool strip(struct xdp_md *context, const struct outer *outer)
{
	struct ethhdr eth, *new;

	if (bpf_xdp_load_bytes(context, 0, &eth, sizeof(eth)))
		return false;
	eth.h_proto = bpf_htons(outer->inner_protocol == IPPROTO_IPIP ? ETH_P_IP : ETH_P_IPV6);
	if (bpf_xdp_adjust_head(context, (int)(outer->end & FURTHEST) - (int)sizeof(eth)))
		return false;
	new = (void *)(long)context->data;
	if ((void *)(new + 1) > (void *)(long)context->data_end)
		return false;
	__builtin_memcpy(new, &eth, sizeof(eth));
	return true;
}

SEC("xdp")
int decapsulate(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct outer outer = {};
	bool fragment = false;
	__u32 length = 0;
	int verdict;

	if (!read_outer(data, end, &outer, &fragment))
		return XDP_PASS;
	if (!bpf_map_lookup_elem(&tunnel_ends, &outer.destination))
		return pass(FOREIGN_OUTER);
	if (fragment)
		return pass(FRAGMENTS);
	verdict = examine_inner(data + (outer.end & FURTHEST), end, &outer, &length);
	if (verdict >= 0)
		return verdict;
	if (outer.summed && !intact(context, &outer)) {
		count(CHECKSUM_WRONG, 1);
		return XDP_DROP;
	}
	if (!mark_inner(context, &outer)) {
		count(CONGESTION_DROPPED, 1);
		return XDP_DROP;
	}
	if (outer.remote_field && !complete(context, &outer, length))
		return pass(MALFORMED);
	if (!strip(context, &outer))
		return pass(MALFORMED);
	count(DECAPSULATED, 1);
	count(DECAPSULATED_BYTES, length);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
