/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * NAT: addresses and ports are translated in place. One function serves both
 * directions, and will serve FULLNAT: it sets all four.
 */
#ifndef XLVS_FORWARD_NAT_H
#define XLVS_FORWARD_NAT_H

#include "../checksum.h"

struct translation {
	__u8 saddr[16] __attribute__((aligned(8))); /* copied as words */
	__u8 daddr[16];
	__be16 sport;
	__be16 dport;
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
	__u64 old, new;

	if (!check || (void *)(ports + 2) > end || !translate_ip(data, end, p, t, ttl_step))
		return false;
	ports[0] = t->sport;
	ports[1] = t->dport;
	if (unlikely(checksum_partial(p, *check) || !*check))
		return checksum_write(ctx, p, t->saddr, t->daddr);
	old = sum_words(p->saddr, p->family) + sum_words(p->daddr, p->family) + p->sport + p->dport;
	new = sum_words(t->saddr, p->family) + sum_words(t->daddr, p->family) + t->sport + t->dport;
	*check = csum_replace(*check, old, new);
	if (p->protocol == IPPROTO_UDP && !*check)
		*check = 0xffff;
	return true;
}

#endif
