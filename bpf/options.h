/* SPDX-License-Identifier: GPL-2.0-only */
/* What a SYN or SYN-ACK offers in its options (RFC 9293, RFC 7323, RFC 2018). */
#ifndef XLVS_OPTIONS_H
#define XLVS_OPTIONS_H

#include "tcp_options.h"

#define OPTION_SCALE  3
#define LARGEST_SCALE 14  /* RFC 7323, 2.3 */
#define LEAST_MSS     536 /* without the option, RFC 9293 3.7.1; IPv6: 1220 */
#define LEAST_MSS6    1220
#define DEFAULT_SCALE 7 /* the director's, before it knows its servers' */

/* The window scale in service.server_offer. */
static __always_inline __u32 known_scale(__u32 said)
{
	__u32 raised = said >> 16 & 31;

	if (!said)
		return DEFAULT_SCALE;
	return raised ? raised - 1 : XLVS_NO_SCALE;
}

static __always_inline void offer_stamps(struct offer_walk *walk, const __u8 *option)
{
	__be32 stamp, echo;

	__builtin_memcpy(&stamp, option + 2, sizeof(stamp));
	__builtin_memcpy(&echo, option + 6, sizeof(echo));
	walk->offer |= XLVS_OFFER_STAMPS;
	walk->stamp = bpf_ntohl(stamp);
	walk->echo = bpf_ntohl(echo);
}

static long read_option(__u32 round, void *unused)
{
	struct xlvs_scratch *notes = scratch_get();
	struct offer_walk *walk;
	__u8 kind, size, *option;

	if (!notes)
		return 1;
	walk = &notes->offered;
	if (walk->at >= walk->length)
		return 1;
	option = walk->text + (walk->at & (OFFER_TEXT - 1));
	kind = option[0];
	if (kind == OPTION_END)
		return 1;
	size = kind == OPTION_NOP ? 1 : option[1];
	if (!size || (size < 2 && kind != OPTION_NOP) || walk->at + size > walk->length)
		return 1;
	walk->at += size;
	if (kind == OPTION_MSS && size == OPTION_MSS_SIZE)
		walk->offer = (walk->offer & ~0xffffu) | option[2] << 8 | option[3];
	else if (kind == OPTION_SCALE && size == 3)
		walk->offer = (walk->offer & ~0xf0000u) |
			      (option[2] > LARGEST_SCALE ? LARGEST_SCALE : option[2]) << 16;
	else if (kind == OPTION_SACK_OK && size == 2)
		walk->offer |= XLVS_OFFER_SACK;
	else if (kind == OPTION_TIMESTAMPS && size == OPTION_STAMPS_SIZE)
		offer_stamps(walk, option);
	return 0;
}

/* What the SYN at p offers: MSS | window scale or XLVS_NO_SCALE << 16 | XLVS_OFFER_*; the stamps are in the walk. */
static __always_inline __u32 offer_of(struct xdp_md *ctx, const struct packet *p,
				      struct xlvs_scratch *notes)
{
	struct tcphdr *tcp = data_of(ctx) + l4_of(p);
	struct offer_walk *walk = &notes->offered;
	__u32 length;

	walk->offer = XLVS_NO_SCALE << 16 | (p->family == XLVS_IPV4 ? LEAST_MSS : LEAST_MSS6);
	if ((void *)(tcp + 1) > end_of(ctx))
		return walk->offer;
	length = (tcp->doff * 4 - sizeof(*tcp)) & (OFFER_TEXT - 1);
	if (!length || tcp->doff < 5)
		return walk->offer;
	walk->at = 0;
	walk->length = length;
	if (bpf_xdp_load_bytes(ctx, l4_of(p) + sizeof(*tcp), walk->text,
			       ((length - 1) & (OFFER_TEXT - 1)) + 1))
		return walk->offer;
	bpf_loop(40, read_option, 0, 0);
	return walk->offer;
}

#endif
