// SPDX-License-Identifier: GPL-2.0
/*
 * The tunnel end of a TUN real server: takes the outer IP header off packets that
 * a director sent to this server, and hands the inner ones to the stack.
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
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_FRAGMENT    0x3fff /* more-fragments bit and offset */
#define ECN_MASK       3
#define ECN_CE	       3
#define MOST_ADDRESSES 1024

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
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MOST_ADDRESSES);
	__type(key, struct address);
	__type(value, __u8);
} tunnel_ends SEC(".maps"), vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* What the outer header says. */
struct outer {
	struct address destination;
	__u32 length;	     /* of the outer header, bytes */
	__u8 inner_protocol; /* IPPROTO_IPIP or IPPROTO_IPV6 */
	__u8 ecn;
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

/* Read the outer header; false where the packet is no tunnel packet at all. */
static __always_inline bool read_outer(void *data, void *end, struct outer *outer, bool *fragment)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if ((void *)(ip + 1) > end)
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP) && ip->version == 4 && ip->ihl >= 5) {
		outer->inner_protocol = ip->protocol;
		outer->length = ip->ihl * 4;
		outer->ecn = ip->tos & ECN_MASK;
		outer->destination = mapped(ip->daddr);
		*fragment = ip->frag_off & bpf_htons(IP_FRAGMENT);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		outer->inner_protocol = ip6->nexthdr;
		outer->length = sizeof(*ip6);
		outer->ecn = ipv6_ecn(ip6);
		outer->destination = native(&ip6->daddr);
		*fragment = false; /* a fragment header is another nexthdr: no tunnel for us */
	} else {
		return false;
	}
	return outer->inner_protocol == IPPROTO_IPIP || outer->inner_protocol == IPPROTO_IPV6;
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

/* Check the inner packet and carry the congestion mark; -1: go on, else the verdict. */
static __always_inline int settle_inner(void *inner, void *end, const struct outer *outer,
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
	if (!bpf_map_lookup_elem(&vips, &destination))
		return pass(FOREIGN_INNER);
	if (outer->ecn != ECN_CE)
		return -1;
	if (ipv4 ? mark4(inner) : mark6(inner))
		return -1;
	count(CONGESTION_DROPPED, 1);
	return XDP_DROP;
}

SEC("xdp")
int decapsulate(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct outer outer = {};
	struct ethhdr eth;
	__u32 length = 0;
	bool fragment;
	void *inner;
	int verdict;

	if (!read_outer(data, end, &outer, &fragment))
		return XDP_PASS;
	if (!bpf_map_lookup_elem(&tunnel_ends, &outer.destination))
		return pass(FOREIGN_OUTER);
	if (fragment)
		return pass(FRAGMENTS);
	inner = data + sizeof(eth) + (outer.length & 0x3f);
	verdict = settle_inner(inner, end, &outer, &length);
	if (verdict >= 0)
		return verdict;

	__builtin_memcpy(&eth, data, sizeof(eth));
	eth.h_proto = bpf_htons(outer.inner_protocol == IPPROTO_IPIP ? ETH_P_IP : ETH_P_IPV6);
	if (bpf_xdp_adjust_head(context, outer.length))
		return pass(MALFORMED);
	data = (void *)(long)context->data;
	end = (void *)(long)context->data_end;
	if (data + sizeof(eth) > end)
		return XDP_DROP; /* never: the inner header was read there */
	__builtin_memcpy(data, &eth, sizeof(eth));
	count(DECAPSULATED, 1);
	count(DECAPSULATED_BYTES, length);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
