/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The client's address in a TCP option (TOA): kind, length, port, address. It stands in
 * front of the segment's other options.
 */
#ifndef XLVS_TOA_H
#define XLVS_TOA_H

#include "conn.h"
#include "insert.h"
#include "tcp_options.h"

#define TOA_IPV4 8
#define TOA_IPV6 20

static __always_inline __u32 toa_size(const struct xlvs_conn *conn)
{
	return conn->family == XLVS_IPV4 ? TOA_IPV4 : TOA_IPV6;
}

/* Write the option; to has room for the longer one. */
static __always_inline void toa_write(__u8 *to, const struct xlvs_conn *conn, __u8 kind)
{
	to[0] = kind;
	to[1] = toa_size(conn);
	*(__be16 *)(to + 2) = conn->cport;
	set_address(to + 4, conn->caddr, conn->family);
}

/* The option and those in e->is into e->made; their length. */
static __always_inline __u32 toa_join(struct option_edit *e, __u32 size)
{
	if (e->length + size > TCP_OPTIONS)
		return options_pack(size);
	if (size == TOA_IPV4)
		__builtin_memcpy(e->made + TOA_IPV4, e->is, TCP_OPTIONS - TOA_IPV4);
	else
		__builtin_memcpy(e->made + TOA_IPV6, e->is, TCP_OPTIONS - TOA_IPV6);
	return e->length + size;
}

/* Put the option into a segment, whose edited options are in the CPU's scratch. */
static __always_inline bool toa_insert(struct xdp_md *ctx, struct packet *p,
				       const struct xlvs_conn *conn, struct xlvs_scratch *notes)
{
	struct option_edit *e = &notes->edit;
	__u32 size = toa_size(conn), length;
	struct tcp_change c = {};

	toa_write(e->made, conn, e->toa_kind);
	length = toa_join(e, size);
	c.old = options_sum(e->was);
	c.new = options_sum(e->made);
	c.grown = (__s32)length - (__s32)e->length;
	c.words = (sizeof(struct tcphdr) + length) / 4;
	return segment_grow(ctx, p, options_at(p), notes, &c) &&
	       !bpf_xdp_store_bytes(ctx, options_at(p), e->made, ((length - 1) & OPTION_PLACE) + 1);
}

#endif
