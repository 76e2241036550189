/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets that XDP made ready to leave, and the companion sends because XDP cannot. */
#ifndef XLVS_READY_H
#define XLVS_READY_H

#include "emit.h"
#include "index.h"

/* Why the companion must take this packet over, or 0. */
static __always_inline enum xlvs_outcome needs_companion(const struct xlvs_hop *hop)
{
	if (hop->flags & XLVS_HOP_COMPANION_DEVICE)
		return XLVS_HANDED_DEVICE;
	if (hop->flags & XLVS_HOP_COMPANION_NEIGHBOUR)
		return XLVS_HANDED_NEIGHBOUR;
	return XLVS_FORWARDED;
}

/* Give a packet that is ready, save for its link header, to the companion. */
static __always_inline int hand_ready(struct xdp_md *ctx, enum xlvs_outcome why,
				      const struct xlvs_hop *own, __u32 room, __u8 family,
				      const __u8 *target, bool from_source)
{
	__be16 protocol = bpf_htons(family == XLVS_IPV4 ? ETH_P_IP : ETH_P_IPV6);
	struct xlvs_ready *ready;

	if (room != sizeof(struct ethhdr) &&
	    bpf_xdp_adjust_head(ctx, (int)room - (int)sizeof(struct ethhdr)))
		return drop_as(XLVS_DROP_MALFORMED);
	if (!write_link_header(ctx, own, 0, protocol))
		return drop_as(XLVS_DROP_MALFORMED);
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*ready)))
		return drop_as(XLVS_DROP_NO_METADATA);
	ready = (void *)(long)ctx->data_meta;
	if ((void *)(ready + 1) > (void *)(long)ctx->data)
		return drop_as(XLVS_DROP_NO_METADATA);
	ready->magic = XLVS_READY_MAGIC;
	ready->family = family;
	ready->from_source = from_source;
	ready->own = why == XLVS_HANDED_OWN;
	ready->pad = 0;
	copy_address(ready->target, target);
	return pass_as(why);
}

#endif
