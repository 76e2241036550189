/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The outer IP header of tunnels, DIP -> RIP (RFC 2003, RFC 2473), either family around
 * either. TTL, DSCP and DF come from inside, ECN as RFC 6040 has it.
 */
#ifndef XLVS_OUTER_H
#define XLVS_OUTER_H

#include "checksum.h"

#define ECN_MASK 3
#define ECN_CE	 3
#define ECN_ECT0 2

/* Size of the outer IP header. */
static __always_inline __u32 tunnel_header(const struct xlvs_dest *dest)
{
	return ip_header_size(dest->family);
}

/* What the outer header takes from inside, and what it says comes next. */
struct inner {
	__u8 traffic_class;
	__u8 ttl;
	bool dont_fragment;
	__u8 protocol;
	__u16 length;
};

static __always_inline bool read_inner(void *data, void *end, const struct packet *p,
				       struct inner *in)
{
	struct xlvs_settings *set = settings_get();

	in->protocol = p->family == XLVS_IPV4 ? IPPROTO_IPIP : IPPROTO_IPV6;
	in->length = p->length;
	if (p->family == XLVS_IPV4) {
		struct iphdr *ip = data + l3_of(p);

		if ((void *)(ip + 1) > end)
			return false;
		in->traffic_class = ip->tos;
		in->ttl = ip->ttl;
		in->dont_fragment =
			ip->frag_off & bpf_htons(IP_DONT_FRAGMENT) && set && set->sysctl.pmtu_disc;
	} else {
		struct ipv6hdr *ip = data + l3_of(p);

		if ((void *)(ip + 1) > end)
			return false;
		in->traffic_class = ip->priority << 4 | ip->flow_lbl[0] >> 4;
		in->ttl = ip->hop_limit;
		in->dont_fragment = false;
	}
	if ((in->traffic_class & ECN_MASK) == ECN_CE)
		in->traffic_class = (in->traffic_class & ~ECN_MASK) | ECN_ECT0;
	return true;
}

/* As words from registers: bytes stored and then summed as words would stall the CPU. */
static __always_inline void write_outer_ipv4(struct iphdr *ip, const struct xlvs_dest *dest,
					     const struct inner *in)
{
	__u32 id = in->dont_fragment ? 0 : bpf_get_prandom_u32() << 16;
	__be32 source = *(const __be32 *)dest->source, target = *(const __be32 *)dest->address;
	__be32 head = bpf_htonl(0x45u << 24 | (__u32)in->traffic_class << 16 |
				(__u16)(in->length + sizeof(*ip)));
	__be32 fragment = bpf_htonl(id | (in->dont_fragment ? IP_DONT_FRAGMENT : 0));
	__be32 life = bpf_htonl((__u32)in->ttl << 24 | (__u32)in->protocol << 16);
	__u64 sum = (__u64)head + fragment + life + source + target;
	__be32 *word = (__be32 *)ip;

	word[0] = head;
	word[1] = fragment;
	word[2] = life | bpf_htonl(bpf_ntohs((__u16)~csum_fold(sum)));
	word[3] = source;
	word[4] = target;
}

static __always_inline void write_outer_ipv6(struct ipv6hdr *ip, const struct xlvs_dest *dest,
					     const struct inner *in)
{
	*(__be32 *)ip = bpf_htonl(6u << 28 | (__u32)in->traffic_class << 20);
	ip->payload_len = bpf_htons(in->length);
	ip->nexthdr = in->protocol;
	ip->hop_limit = in->ttl;
	__builtin_memcpy(&ip->saddr, dest->source, 16);
	__builtin_memcpy(&ip->daddr, dest->address, 16);
}

/* Write it at that offset of the frame; false where there is no room. */
static __always_inline bool write_outer(void *data, void *end, __u32 at,
					const struct xlvs_dest *dest, const struct inner *in)
{
	if (at > 22)
		return false;
	if (dest->family == XLVS_IPV4) {
		struct iphdr *ip = data + at;

		if ((void *)(ip + 1) > end)
			return false;
		write_outer_ipv4(ip, dest, in);
	} else {
		struct ipv6hdr *ip = data + at;

		if ((void *)(ip + 1) > end)
			return false;
		write_outer_ipv6(ip, dest, in);
	}
	return true;
}

#endif
