/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Windows of connections that SYNPROXY made with another scale than their real server has:
 * the first to a service, before its servers' is known, or to one that differs.
 */
#ifndef XLVS_WINDOW_H
#define XLVS_WINDOW_H

#include "checksum.h"
#include "conn.h"

/* By how much the sender's window must be shifted left to mean the same at the other end. */
static __always_inline __s32 window_shift(const struct xlvs_conn *conn, bool reply)
{
	if (reply)
		return conn->window_shift;
	return conn->older & XLVS_SERVER_UNSCALED ? conn->older >> 16 & 15 : 0;
}

/* Rounded down: nobody may send more than there is room for. */
static __always_inline __u16 window_shifted(__u32 window, __s32 shift)
{
	window = shift < 0 ? window >> (-shift & 15) : window << (shift & 15);
	return window > 0xffff ? 0xffff : window;
}

static __always_inline bool rescale_window(struct xdp_md *ctx, const struct packet *p,
					   const struct flow *flow)
{
	__s32 shift = window_shift(flow->conn, is_reply(flow));
	struct tcphdr *tcp = data_of(ctx) + l4_of(p);
	__be16 old;

	if (!shift || p->protocol != IPPROTO_TCP || p->tcp & TCP_SYN)
		return true;
	if ((void *)(tcp + 1) > end_of(ctx))
		return false;
	old = tcp->window;
	tcp->window = bpf_htons(window_shifted(bpf_ntohs(old), shift));
	if (!checksum_partial(p, tcp->check))
		tcp->check = csum_replace(tcp->check, old, tcp->window);
	return true;
}

#endif
