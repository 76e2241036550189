/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors about a connection's packets go where those came from: ip_vs_in_icmp,
 * ip_vs_out_icmp, their _v6 brothers and handle_response_icmp of ip_vs_core.c. All else
 * of ICMP (echoes to a VIP, neighbour discovery) is the kernel's.
 */
#ifndef XLVS_ICMP_H
#define XLVS_ICMP_H

#include "icmp_find.h"
#include "icmp_tunnel.h"
#include "leave.h"
#include "relay.h"

static __always_inline int handle_icmp(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	struct packet p = {}, about = {};
	struct relayed r = { .kind = RELAY_ERROR, .packets = 1 };
	struct fragment f = {};
	struct flow flow;
	enum parsed what = parse_xdp(ctx, &p);
	int verdict;

	if (what == PARSED_EXTENSION)
		what = walk(ctx, &p, &f);
	if (what != PARSED_PROTOCOL || !is_icmp(&p) || !is_whole(&f))
		return pass_as(XLVS_NOT_OURS);
	r.bytes = p.length;
	if (!icmp_find(ctx, &p, &r.quote, &about, &flow)) {
		if (!about.protocol)
			return pass_as(XLVS_NOT_OURS);
		verdict = handle_tunnel_error(ctx, &p, &r.quote, &about, set);
		if (verdict >= 0)
			return verdict;
		if (about_request(&about, &flow))
			account_passing(&p, &flow);
		return pass_as(XLVS_NOT_OURS);
	}
	if (!icmp_intact(ctx, &p))
		return drop_as(XLVS_DROP_ICMP_CHECKSUM);
	return relay(ctx, &p, &flow, &r, set);
}

#endif
