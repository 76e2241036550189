/* SPDX-License-Identifier: GPL-2.0-only */
/* The last step of every forwarding method: new link header, and out. */
#ifndef XLVS_EMIT_H
#define XLVS_EMIT_H

#include "hop.h"
#include "outcome.h"

static __always_inline __u32 hop_tags(const struct xlvs_hop *hop)
{
	return hop->flags >> XLVS_HOP_TAGS_SHIFT & 3;
}

static __always_inline bool write_link_header(struct xdp_md *ctx, const struct xlvs_hop *hop,
					      __u32 tags, __be16 protocol)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct vlan_tag *tag = data + sizeof(*eth);
	const __u32 *addresses = (const __u32 *)hop->dmac; /* and smac behind it */
	__u32 *to = data;

	if ((void *)(eth + 1) > end)
		return false;
	/* As words: struct ethhdr is packed, and clang would write it byte by byte. */
	to[0] = addresses[0];
	to[1] = addresses[1];
	to[2] = addresses[2];
	*(__be16 *)(to + 3) = protocol;
	if (likely(!tags))
		return true;
	if ((void *)(tag + 2) > end)
		return false;
	eth->h_proto = bpf_htons(tags == 2 ? ETH_P_8021AD : ETH_P_8021Q);
	tag[0].id = hop->vlan[0];
	tag[0].protocol = protocol;
	if (tags == 2) {
		tag[0].protocol = bpf_htons(ETH_P_8021Q);
		tag[1].id = hop->vlan[1];
		tag[1].protocol = protocol;
	}
	return true;
}

/*
 * The link header for the hop, in front of the (possibly new) IP header, where there is
 * room for room bytes; family is that of the IP header.
 */
static __always_inline bool link_to(struct xdp_md *ctx, const struct xlvs_hop *hop, __u32 room,
				    __u8 family)
{
	__u32 tags = hop_tags(hop), need = sizeof(struct ethhdr) + tags * VLAN_TAG;
	__be16 protocol = bpf_htons(family == XLVS_IPV4 ? ETH_P_IP : ETH_P_IPV6);

	if (unlikely(room != need) && bpf_xdp_adjust_head(ctx, (int)room - (int)need))
		return false;
	return write_link_header(ctx, hop, tags, protocol);
}

static __always_inline int leave_by(struct xdp_md *ctx, const struct xlvs_hop *hop)
{
	if (hop->ifindex == ctx->ingress_ifindex && hop->flags & XLVS_HOP_TX)
		return XDP_TX;
	return bpf_redirect(hop->ifindex, 0);
}

/* Send the packet to its hop. */
static __always_inline int emit(struct xdp_md *ctx, const struct xlvs_hop *hop, __u32 room,
				__u8 family)
{
	if (!link_to(ctx, hop, room, family))
		return drop_as(XLVS_DROP_MALFORMED);
	count(XLVS_FORWARDED);
	return leave_by(ctx, hop);
}

/* Pass the packet up unchanged, with what the companion knows it by in front of it. */
static __always_inline int hand_over_as(struct xdp_md *ctx, enum xlvs_outcome why, __u32 magic)
{
	struct xlvs_meta *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return drop_as(XLVS_DROP_NO_METADATA);
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return drop_as(XLVS_DROP_NO_METADATA);
	meta->magic = magic;
	return pass_as(why);
}

/* Let the tc companion finish what XDP cannot. */
static __always_inline int hand_over(struct xdp_md *ctx, enum xlvs_outcome why)
{
	return hand_over_as(ctx, why, XLVS_META_MAGIC);
}

#endif
