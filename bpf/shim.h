/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What GRE and GUE put between the outer IP header and the packet: whole words, as they
 * go onto the wire, with one checksum over all that follows the outer header.
 */
#ifndef XLVS_SHIM_H
#define XLVS_SHIM_H

#include "outer.h"

#define SHIM_WORDS 5

struct shim {
	__be32 word[SHIM_WORDS];
	__u32 size;  /* bytes; 0: plain IP in IP */
	__u32 check; /* offset of the checksum, 0: none */
	__u8 protocol;
	bool remote; /* the receiver completes the inner checksum, which stays partial */
};

/* GRE's checksum has no pseudo-header, UDP's has the outer addresses. */
static __always_inline __u32 shim_seed(const struct shim *shim, const struct xlvs_dest *dest,
				       __u32 length)
{
	if (shim->protocol != IPPROTO_UDP)
		return 0;
	return csum_fold(
		pseudo_sum(dest->source, dest->address, dest->family, IPPROTO_UDP, length));
}

/* The checksum from the folded sum; UDP has another word for 0 (RFC 768). */
static __always_inline __u16 shim_check(const struct shim *shim, __u32 sum)
{
	__u16 check = ~(__u16)sum;

	return !check && shim->protocol == IPPROTO_UDP ? 0xffff : check;
}

/* Put outer header and shim before the packet, as encapsulate does for the former alone. */
static __always_inline bool encapsulate_shim(struct xdp_md *ctx, const struct packet *p,
					     const struct xlvs_dest *dest, const struct shim *shim,
					     __u32 room)
{
	__u32 at = room + tunnel_header(dest), length = p->length + shim->size, sum;
	int grow = (int)(at + shim->size) - p->l3;
	struct inner in = {};
	__be16 *check;
	void *to;

	if (!read_inner(data_of(ctx), end_of(ctx), p, &in) || bpf_xdp_adjust_head(ctx, -grow))
		return false;
	in.protocol = shim->protocol;
	in.length = length;
	if (!write_outer(data_of(ctx), end_of(ctx), room, dest, &in))
		return false;
	to = data_of(ctx) + (at & 127);
	for (__u32 i = 0; i < SHIM_WORDS; i++, to += 4) {
		if (i * 4 >= shim->size)
			break;
		if (to + 4 > end_of(ctx))
			return false;
		*(__be32 *)to = shim->word[i];
	}
	if (!shim->check)
		return true;
	sum = checksum_range(ctx, at, length, shim_seed(shim, dest, length));
	check = data_of(ctx) + ((at + shim->check) & 127);
	if ((void *)(check + 1) > end_of(ctx))
		return false;
	*check = shim_check(shim, sum);
	return true;
}

#endif
