/* SPDX-License-Identifier: GPL-2.0-only */
/* DR: the packet stays as it is, but for its TTL and a checksum left to hardware. */
#ifndef XLVS_FORWARD_DR_H
#define XLVS_FORWARD_DR_H

#include "../checksum.h"

static __always_inline bool decrement_ttl(void *data, void *end, const struct packet *p)
{
	if (p->family == XLVS_IPV4) {
		struct iphdr *ip = data + l3_of(p);
		__u32 check;

		if ((void *)(ip + 1) > end)
			return false;
		/* One less in the TTL's byte is one more in the sum's (RFC 1141). */
		check = ip->check + (__u32)bpf_htons(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
	} else {
		struct ipv6hdr *ip = data + l3_of(p);

		if ((void *)(ip + 1) > end)
			return false;
		ip->hop_limit--;
	}
	return true;
}

/* Make a partial transport checksum whole, in place. */
static __always_inline bool complete_checksum(struct xdp_md *ctx, const struct packet *p)
{
	__u16 *check = check_field((void *)(long)ctx->data, (void *)(long)ctx->data_end, p);

	if (!check)
		return false;
	return likely(!checksum_partial(p, *check)) || checksum_write(ctx, p, p->saddr, p->daddr);
}

/* What DR does to a packet, and TUN to the inner one. */
static __always_inline bool pass_on(struct xdp_md *ctx, const struct packet *p)
{
	if (!complete_checksum(ctx, p))
		return false;
	return decrement_ttl((void *)(long)ctx->data, (void *)(long)ctx->data_end, p);
}

#endif
