/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors about a connection's packets go where those came from: ip_vs_in_icmp,
 * ip_vs_out_icmp, their _v6 brothers and handle_response_icmp of ip_vs_core.c. All else
 * of ICMP (echoes to a VIP, neighbour discovery) is the kernel's.
 */
#ifndef XLVS_ICMP_H
#define XLVS_ICMP_H

#include "further.h"
#include "icmp_find.h"
#include "icmp_tunnel.h"
#include "leave.h"
#include "relay_on.h"

static __always_inline int handle_icmp(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	enum parsed what = parse_further(ctx);
	struct xlvs_scratch *notes = scratch_get();
	struct packet *p;
	struct flow flow;
	int verdict;

	if (!notes)
		return XDP_PASS;
	p = &notes->packet;
	if (what != PARSED_PROTOCOL || !is_icmp(p) || !is_whole(&notes->fragment))
		return pass_as(XLVS_NOT_OURS);
	if (!icmp_find(ctx, notes, &flow)) {
		if (!notes->about.protocol)
			return pass_as(XLVS_NOT_OURS);
		if (about_request(notes, &flow)) {
			account_passing(p, &flow);
			return pass_as(XLVS_NOT_OURS);
		}
		verdict = handle_tunnel_error(ctx, notes, set);
		return verdict >= 0 ? verdict : pass_as(XLVS_NOT_OURS);
	}
	if (!icmp_intact(ctx, p))
		return drop_as(XLVS_DROP_ICMP_CHECKSUM);
	return relay_on(ctx, notes, &flow, RELAY_ERROR, p->length, false);
}

#endif
