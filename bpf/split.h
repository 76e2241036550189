/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IPv4 packets over the next hop's MTU that may be fragmented: no helper of XDP's can send
 * two packets for one, so the slow-path helper cuts them and puts the parts back. Without it
 * the sender is told to send less, which most heed even if they did not ask to be told.
 */
#ifndef XLVS_SPLIT_H
#define XLVS_SPLIT_H

#include "event.h"
#include "forward/dr.h"
#include "walk.h"

/* With pmtu_disc off, what goes through tunnels is fragmented though it says it must not be. */
static __always_inline bool tunnels_split(const struct xlvs_scratch *notes,
					  const struct xlvs_settings *set)
{
	__u32 row = notes->counted_dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);

	return !set->sysctl.pmtu_disc && !notes->counted_reply && dest &&
	       dest->forward == XLVS_TUNNEL;
}

static __always_inline bool may_split(struct xdp_md *ctx, const struct xlvs_scratch *notes,
				      const struct xlvs_settings *set)
{
	__u32 size = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	__be16 fragment;

	if (notes->error_outcome != XLVS_DROP_TOO_BIG || notes->packet.family != XLVS_IPV4)
		return false;
	if (size > XLVS_EVENT_FRAME || !helper_runs(set) ||
	    bpf_xdp_load_bytes(ctx, notes->packet.l3 + 6, &fragment, sizeof(fragment)))
		return false;
	return !(fragment & bpf_htons(IP_DONT_FRAGMENT)) || tunnels_split(notes, set);
}

/* What was counted and changed already is taken back: the parts will be. */
static __always_inline int split(struct xdp_md *ctx, struct xlvs_scratch *notes,
				 const struct xlvs_settings *set)
{
	struct packet *p = &notes->packet;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 row = notes->counted_dest, bytes = p->length;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);
	struct iphdr *ip = data + l3_of(p);
	bool later;

	if ((void *)(ip + 1) > end)
		return drop_as(XLVS_DROP_MALFORMED);
	later = ip->frag_off & bpf_htons(IP_OFFSET);
	if (later)
		bytes -= ip->ihl * 4;
	ip->check = csum_replace(ip->check, bpf_htons(0x0100), bpf_htons(0x0200));
	ip->ttl++;
	if (dest && dest->flags & XLVS_DEST_AVAILABLE)
		account_part(dest, row, notes->counted_reply, later ? 0 : -1, -(__s64)bytes);
	return leave_to_helper(ctx, XLVS_EVENT_SPLIT, 0, notes->error_mtu, XLVS_HANDED_SPLIT, set);
}

#endif
