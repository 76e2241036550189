/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Making a TCP segment longer or shorter somewhere inside. A frame grows at its front: only
 * there a driver is sure to have room.
 */
#ifndef XLVS_INSERT_H
#define XLVS_INSERT_H

#include "checksum.h"

#define HEAD_PLACE     1023 /* mask: no TCP header that we read ends later */
#define LONGEST_SUMMED (CHECKSUM_CHUNK * CHECKSUM_CHUNKS)

/*
 * Whether the segment's checksum is right, as far as it can be told. Who writes it anew looks
 * first, as IPVS does: a packet that was damaged goes no further.
 */
static __always_inline bool segment_intact(struct xdp_md *ctx, const struct packet *p)
{
	__u16 *check = check_field((void *)(long)ctx->data, (void *)(long)ctx->data_end, p);
	__u32 length = l4_length(p), pseudo;

	if (!check)
		return false;
	if (checksum_partial(p, *check) || length > LONGEST_SUMMED)
		return true;
	pseudo = csum_fold(pseudo_sum(p->saddr, p->daddr, p->family, p->protocol, length));
	return (__u16)checksum_range(ctx, p->l4, length, pseudo) == 0xffff;
}

/* The IP packet is this much longer now. */
static __noinline bool ip_resize(struct xdp_md *ctx, const struct packet *p, __s32 grown)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = data + l3_of(p);
	struct iphdr *ip = (void *)ip6;
	__be16 old;

	if (p->family == XLVS_IPV6) {
		if ((void *)(ip6 + 1) > end)
			return false;
		ip6->payload_len = bpf_htons(bpf_ntohs(ip6->payload_len) + grown);
		return true;
	}
	if ((void *)(ip + 1) > end)
		return false;
	old = ip->tot_len;
	ip->tot_len = bpf_htons(bpf_ntohs(old) + grown);
	ip->check = csum_replace(ip->check, old, ip->tot_len);
	return true;
}

/* A TCP header and its checksum, about to change. */
struct tcp_change {
	__u64 old; /* sums of what changes, before and after */
	__u64 new;
	__s32 grown;	/* bytes of the segment */
	__u32 words;	/* of its header, afterwards */
	__u32 inserted; /* in front of its payload */
};

/*
 * Correct the TCP header in the first bytes of notes->payload, a copy of the frame's. A
 * partial checksum stays one: of the new length.
 */
static __always_inline void tcp_resize(struct xlvs_scratch *notes, const struct packet *p,
				       const struct tcp_change *c)
{
	struct tcphdr *tcp = (void *)(notes->payload + l4_of(p));
	__u16 length = l4_length(p), *word = (__u16 *)tcp + 6;
	__u64 old = c->old + *word + bpf_htons(length), new;
	bool partial = checksum_partial(p, tcp->check);

	length += c->grown;
	tcp->doff = c->words;
	new = c->new + *word + bpf_htons(length);
	if (tcp->urg && c->inserted) {
		old += tcp->urg_ptr;
		tcp->urg_ptr = bpf_htons(bpf_ntohs(tcp->urg_ptr) + c->inserted);
		new += tcp->urg_ptr;
	}
	if (partial)
		tcp->check =
			csum_fold(pseudo_sum(p->saddr, p->daddr, p->family, p->protocol, length));
	else
		tcp->check = csum_replace(tcp->check, old, new);
}

/*
 * Have the segment grow (or shrink) behind the first head bytes of the frame, whose TCP
 * header changes so. The new bytes are the caller's to write.
 */
static __always_inline bool segment_grow(struct xdp_md *ctx, struct packet *p, __u32 head,
					 struct xlvs_scratch *notes, const struct tcp_change *c)
{
	__u32 size = ((head - 1) & HEAD_PLACE) + 1;

	if (bpf_xdp_load_bytes(ctx, 0, notes->payload, size))
		return false;
	tcp_resize(notes, p, c);
	if (c->grown && bpf_xdp_adjust_head(ctx, -c->grown))
		return false;
	if (bpf_xdp_store_bytes(ctx, 0, notes->payload, size) || !ip_resize(ctx, p, c->grown))
		return false;
	p->length += c->grown;
	return true;
}

/* Cut the segment's payload, which begins at a place in the frame, to so many bytes. */
static __always_inline bool payload_cut(struct xdp_md *ctx, struct packet *p, __u32 at, __u32 keep)
{
	__s32 grown = (__s32)(at + keep) - (__s32)(p->l3 + p->length);
	__s32 tail =
		(__s32)(at + keep) - (__s32)((void *)(long)ctx->data_end - (void *)(long)ctx->data);

	if (grown > 0 || tail > 0 || (tail && bpf_xdp_adjust_tail(ctx, tail)) ||
	    !ip_resize(ctx, p, grown))
		return false;
	p->length += grown;
	return true;
}

#endif
