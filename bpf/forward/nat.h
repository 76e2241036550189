/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * NAT and FULLNAT: addresses and ports are translated in place, and TCP's numbers. One
 * function serves both directions of both: it sets all four.
 */
#ifndef XLVS_FORWARD_NAT_H
#define XLVS_FORWARD_NAT_H

#include "../checksum.h"

struct translation {
	__u8 saddr[16] __attribute__((aligned(8))); /* copied as words */
	__u8 daddr[16];
	__be16 sport;
	__be16 dport;
	__u32 sequence; /* added to TCP's numbers */
	__u32 acknowledged;
};

static __always_inline bool translate_ip(void *data, void *end, const struct packet *p,
					 const struct translation *t, __u8 ttl_step)
{
	if (p->family == XLVS_IPV4) {
		struct iphdr *ip = data + l3_of(p);
		__u64 old, new;

		if ((void *)(ip + 1) > end)
			return false;
		old = (__u64)ip->saddr + ip->daddr + *(__u16 *)&ip->ttl;
		ip->saddr = *(const __be32 *)t->saddr;
		ip->daddr = *(const __be32 *)t->daddr;
		ip->ttl -= ttl_step;
		new = (__u64)ip->saddr + ip->daddr + *(__u16 *)&ip->ttl;
		ip->check = csum_replace(ip->check, old, new);
	} else {
		struct ipv6hdr *ip = data + l3_of(p);

		if ((void *)(ip + 1) > end)
			return false;
		__builtin_memcpy(&ip->saddr, t->saddr, 16);
		__builtin_memcpy(&ip->daddr, t->daddr, 16);
		ip->hop_limit -= ttl_step;
	}
	return true;
}

/* Add to a segment's numbers; what their words were and are goes into the sums. */
static __always_inline bool translate_numbers(void *end, __be16 *ports, const struct packet *p,
					      const struct translation *t, __u64 *old, __u64 *new)
{
	__be32 *numbers = (__be32 *)(ports + 2);

	if ((void *)(numbers + 2) > end)
		return false;
	*old += (__u64)numbers[0] + numbers[1];
	numbers[0] = bpf_htonl(bpf_ntohl(numbers[0]) + t->sequence);
	if (p->tcp & TCP_ACK)
		numbers[1] = bpf_htonl(bpf_ntohl(numbers[1]) + t->acknowledged);
	*new += (__u64)numbers[0] + numbers[1];
	return true;
}

/* What a transport checksum covers of all that is translated, save for TCP's numbers. */
static __always_inline __u64 sum_ends(const __u8 *saddr, const __u8 *daddr, __be16 sport,
				      __be16 dport, __u8 family)
{
	return sum_words(saddr, family) + sum_words(daddr, family) + sport + dport;
}

/*
 * Translate the packet; ttl_step is 1 when it is forwarded, 0 when it stays here. The
 * checksum is updated incrementally, or made whole if the sender left it partial or,
 * over IPv4's UDP, out (IPVS puts one in, too).
 */
static __always_inline bool translate(struct xdp_md *ctx, const struct packet *p,
				      const struct translation *t, __u8 ttl_step)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 *check = check_field(data, end, p);
	__be16 *ports = data + l4_of(p);
	__u64 old = 0, new = 0;

	if (!check || (void *)(ports + 2) > end || !translate_ip(data, end, p, t, ttl_step))
		return false;
	ports[0] = t->sport;
	ports[1] = t->dport;
	if (t->sequence | t->acknowledged && !translate_numbers(end, ports, p, t, &old, &new))
		return false;
	if (unlikely(checksum_partial(p, *check) || !*check))
		return checksum_write(ctx, p, t->saddr, t->daddr);
	old += sum_ends(p->saddr, p->daddr, p->sport, p->dport, p->family);
	new += sum_ends(t->saddr, t->daddr, t->sport, t->dport, p->family);
	*check = csum_replace(*check, old, new);
	if (p->protocol == IPPROTO_UDP && !*check)
		*check = 0xffff;
	return true;
}

#endif
