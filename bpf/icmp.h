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
#include "unknown.h"

/*
 * schedule_icmp: an error about a connection that nobody knows makes one, as the packet that
 * it quotes an answer to would have.
 */
static __always_inline int schedule_error(struct xdp_md *ctx, struct xlvs_scratch *notes,
					  const struct xlvs_settings *set)
{
	__u32 *service = service_find(&notes->about);

	if (!service && !(set->flags & XLVS_HAS_OTHERS))
		return pass_as(XLVS_NOT_OURS);
	notes->about.tcp = notes->about.protocol == IPPROTO_SCTP ? SCTP_INIT : TCP_SYN;
	notes->packet = notes->about;
	notes->service = service ? *service : NOBODY;
	notes->about_error = 1;
	bpf_tail_call(ctx, &programs, XLVS_PROG_NEW);
	return drop_as(XLVS_DROP_RACE);
}

/* An error about no connection that the index would name. */
static __always_inline int about_others(struct xdp_md *ctx, struct xlvs_scratch *notes,
					const struct xlvs_settings *set)
{
	const struct packet *p = &notes->packet;
	struct flow flow;
	int verdict;

	if (about_request(notes, &flow)) {
		account_passing(p, &flow);
		return pass_as(XLVS_NOT_OURS);
	}
	verdict = handle_tunnel_error(ctx, notes, set);
	if (verdict >= 0)
		return verdict;
	if (!set->sysctl.schedule_icmp || !read_quote(ctx, notes->error_quote, p->family))
		return pass_as(XLVS_NOT_OURS);
	return schedule_error(ctx, notes, set);
}

/* What such a connection begins with (ip_vs_conn_new): no packet has given it a state. */
#define SCHEDULED_SECONDS 3

static __always_inline int handle_icmp(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	enum parsed what = parse_further(ctx);
	struct xlvs_scratch *notes = scratch_get();
	struct packet *p;
	struct flow flow;

	if (!notes)
		return XDP_PASS;
	p = &notes->packet;
	if (what == PARSED_FLOW)
		return refuse_unknown(ctx, p, set);
	if (what != PARSED_PROTOCOL || !is_icmp(p) || !is_whole(&notes->fragment))
		return pass_as(XLVS_NOT_OURS);
	if (!icmp_find(ctx, notes, &flow))
		return notes->about.protocol ? about_others(ctx, notes, set)
					     : pass_as(XLVS_NOT_OURS);
	if (!icmp_intact(ctx, p))
		return drop_as(XLVS_DROP_ICMP_CHECKSUM);
	if (notes->about_error && !flow.conn->in_packets)
		flow.conn->timeout = SCHEDULED_SECONDS * set->hz;
	notes->about_error = 0;
	return relay_on(ctx, notes, &flow, RELAY_ERROR, p->length, false);
}

#endif
