/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is rare, in a program of its own, so that the fast path stays short: packets that
 * are not plain TCP or UDP, and connections whose forwarding takes more than a rewrite.
 */
#ifndef XLVS_SPECIAL_H
#define XLVS_SPECIAL_H

#include "defence.h"
#include "event.h"
#include "known.h"
#include "leave.h"
#include "relay_on.h"
#include "reuse.h"
#include "transport.h"
#include "walk.h"
#include "window.h"

/* Read on behind the IP header; false for what only the kernel knows. */
static __always_inline bool parse_transport(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct sctp_chunk chunk;
	__u32 behind;

	if (!parse_other(data, end, p, &behind))
		return false;
	if (behind && !bpf_xdp_load_bytes(ctx, behind, &chunk, sizeof(chunk)))
		sctp_second_chunk(p, &chunk);
	return true;
}

/* Whether the packet is a whole one of a protocol of this program's, behind IPv6 extension headers. */
static __always_inline bool is_behind_headers(struct xdp_md *ctx, struct packet *p)
{
	struct fragment f = {};

	return walk(ctx, p, &f) == PARSED_PROTOCOL && is_whole(&f);
}

/*
 * Read the packet into the CPU's scratch: an enum parsed. A global function: verified once,
 * and what it branched on is forgotten, which the forwarding behind it multiplies.
 */
__noinline int parse_special(struct xdp_md *ctx)
{
	struct xlvs_scratch *notes = scratch_get();
	enum parsed what;
	struct packet *p;

	if (!notes)
		return PARSED_OTHER;
	p = &notes->packet;
	__builtin_memset(p, 0, sizeof(*p));
	what = parse_xdp(ctx, p);
	if ((what == PARSED_EXTENSION || what == PARSED_FRAGMENT) && is_behind_headers(ctx, p))
		what = PARSED_PROTOCOL;
	if (what == PARSED_PROTOCOL && parse_transport(ctx, p))
		what = PARSED_FLOW;
	return what;
}

/* A packet of no connection: to the program that makes connections, if it may be for a service. */
static __always_inline int offer_new(struct xdp_md *ctx, const struct packet *p,
				     const struct xlvs_settings *set)
{
	struct xlvs_scratch *notes = scratch_get();
	__u32 *service = service_find(p);

	if (!service && !(set->flags & XLVS_HAS_OTHERS) && likely(!set->expected))
		return is_unwanted(p, set) ? drop_as(XLVS_DROP_STRAY_UDP) : not_ours(ctx, set);
	if (service && is_stray(p, *service, set))
		return drop_as(XLVS_DROP_STRAY_TCP);
	if (!notes)
		return XDP_PASS;
	notes->about_error = 0;
	notes->packet = *p;
	notes->service = service ? *service : NOBODY;
	bpf_tail_call(ctx, &programs, XLVS_PROG_NEW);
	return drop_as(XLVS_DROP_RACE);
}

/* FTP's segments, and what a client may claim to be: the fast path's own look was not taken here. */
static __always_inline bool needs_opening(struct xdp_md *ctx, const struct packet *p,
					  const struct flow *flow)
{
	if (flow->conn->flags & XLVS_CONN_WATCHED)
		return true;
	return !is_reply(flow) && has_watched_options(p, flow->conn) && has_odd_options(ctx, p);
}

/* SCTP makes connections of its own, AH and ESP follow those of IKE. */
static __always_inline int handle_special(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	struct xlvs_scratch *notes = scratch_get();
	enum parsed what = parse_special(ctx);
	struct packet *p;
	struct flow flow;
	bool found, once, read;
	int verdict;

	if (!notes)
		return XDP_PASS;
	read = notes->ftp.read;
	notes->ftp.read = 0;
	p = &notes->packet;
	if (what == PARSED_PROTOCOL && !is_icmp(p))
		return pass_as(XLVS_NOT_OURS);
	if (what != PARSED_FLOW)
		return leave_fast_path(ctx, what, p);
	once = made_for_it(&flow);
	found = once || flow_find(p, &flow);
	if (found && !once && p->protocol == IPPROTO_SCTP && reused(p, &flow, set)) {
		conn_replace(&flow);
		found = false;
	}
	if (!found)
		return is_ipsec(p->protocol) ? pass_as(XLVS_NOT_OURS) : offer_new(ctx, p, set);
	if (!is_reply(&flow) && denied_by_now(flow.conn->dest))
		return drop_as(XLVS_DROP_DENIED);
	if (!read && needs_opening(ctx, p, &flow)) /* from there to FTP's, if it is that */
		return opening_on(ctx, p, &flow, false);
	if (has_watched_headers(p, flow.conn) || flow.conn->flags & XLVS_CONN_OTHER_FAMILY)
		return relay_on(ctx, notes, &flow, RELAY_WHOLE, p->length, once);
	if (flow.conn->flags & XLVS_CONN_SYNPROXY && !rescale_window(ctx, p, &flow))
		return drop_as(XLVS_DROP_MALFORMED);
	verdict = handle_known(ctx, p, &flow, set, true);
	if (once && ends_at_once(flow.conn))
		conn_end(flow.conn, flow.ref & XLVS_REF_SLOT);
	return verdict;
}

#endif
