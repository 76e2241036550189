/* SPDX-License-Identifier: GPL-2.0-only */
/* TUN: the packet in an outer IP header (RFC 2003, RFC 2473). */
#ifndef XLVS_FORWARD_TUN_H
#define XLVS_FORWARD_TUN_H

#include "../outer.h"

/*
 * Put the outer header in front, with room bytes for the link header before it. The
 * inner packet must be ready to leave (TTL, checksum).
 */
static __always_inline bool encapsulate(struct xdp_md *ctx, const struct packet *p,
					const struct xlvs_dest *dest, __u32 room)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	int grow = (int)(room + tunnel_header(dest)) - p->l3;
	struct inner in = {};

	if (!read_inner(data, end, p, &in) || bpf_xdp_adjust_head(ctx, -grow))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	return write_outer(data, end, room, dest, &in);
}

#endif
