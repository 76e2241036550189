/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is rare, in a program of its own, so that the fast path stays short: packets that
 * are not plain TCP or UDP, and connections whose forwarding takes more than a rewrite.
 */
#ifndef XLVS_SPECIAL_H
#define XLVS_SPECIAL_H

#include "event.h"
#include "known.h"
#include "leave.h"

static __always_inline int handle_special(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	struct packet p = {};
	struct flow flow;
	enum parsed what = parse_xdp(ctx, &p);
	int verdict;

	if (what != PARSED_FLOW && !(what == PARSED_PROTOCOL && !is_icmp(&p)))
		return leave_fast_path(ctx, what, &p);
	if (what != PARSED_FLOW)
		return pass_as(XLVS_NOT_OURS);
	if (made_for_it(&flow)) {
		verdict = handle_known(ctx, &p, &flow, set, true);
		conn_end(flow.conn, flow.ref);
		return verdict;
	}
	if (!conn_find(&p, &flow))
		return drop_as(XLVS_DROP_RACE);
	if (flow.conn->flags & XLVS_CONN_WATCHED) {
		bpf_tail_call(ctx, &programs, XLVS_PROG_FTP);
		return drop_as(XLVS_DROP_RACE);
	}
	return handle_known(ctx, &p, &flow, set, true);
}

#endif
