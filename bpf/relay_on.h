/* SPDX-License-Identifier: GPL-2.0-only */
/* To the relay program, with the packet that stands in the scratch. */
#ifndef XLVS_RELAY_ON_H
#define XLVS_RELAY_ON_H

#include "conn.h"
#include "outcome.h"

/* Whether TCP's options are looked at (opening.h): where real servers may believe them. */
static __always_inline bool has_watched_options(const struct packet *p,
						const struct xlvs_conn *conn)
{
	return p->protocol == IPPROTO_TCP && is_translated(conn->flags);
}

/* Whether IP's options are (uoa.h): where the real server takes the director for the client. */
static __always_inline bool has_watched_headers(const struct packet *p,
						const struct xlvs_conn *conn)
{
	return p->protocol == IPPROTO_UDP && has_local(conn->flags);
}

static __always_inline void relay_describe(struct xlvs_scratch *notes, const struct flow *flow,
					   enum relay kind, __u32 bytes, bool once)
{
	notes->relayed.kind = kind;
	notes->relayed.packets = kind != RELAY_LATER;
	notes->relayed.bytes = bytes;
	notes->relayed.ref = flow->ref;
	notes->relayed.generation = flow->generation;
	notes->relayed.once = once;
	notes->relayed.noted = false;
}

/* The connection that relay_describe named, for the programs behind a tail call. */
static __always_inline bool relayed_flow(const struct xlvs_scratch *notes, struct flow *flow)
{
	flow->ref = notes->relayed.ref;
	flow->generation = notes->relayed.generation;
	flow->conn = conn_at(flow->ref & XLVS_REF_SLOT);
	return flow->conn;
}

static __always_inline int relay_on(struct xdp_md *ctx, struct xlvs_scratch *notes,
				    const struct flow *flow, enum relay kind, __u32 bytes,
				    bool once)
{
	relay_describe(notes, flow, kind, bytes, once);
	if (kind != RELAY_LATER && (has_watched_options(&notes->packet, flow->conn) ||
				    has_watched_headers(&notes->packet, flow->conn)))
		bpf_tail_call(ctx, &programs, XLVS_PROG_OPENING);
	bpf_tail_call(ctx, &programs, XLVS_PROG_RELAY);
	return drop_as(XLVS_DROP_RACE);
}

/*
 * A segment of TCP whose options are to be looked at first: by the opening program, which
 * sends it on to the relay program. noted: it was counted and moved its connection's state.
 */
static __always_inline int opening_on(struct xdp_md *ctx, const struct packet *p,
				      const struct flow *flow, bool noted)
{
	struct xlvs_scratch *notes = scratch_get();

	if (!notes)
		return drop_as(XLVS_DROP_RACE);
	if (p != &notes->packet)
		notes->packet = *p;
	relay_describe(notes, flow, RELAY_WHOLE, p->length, false);
	notes->relayed.noted = noted;
	bpf_tail_call(ctx, &programs, XLVS_PROG_OPENING);
	return drop_as(XLVS_DROP_RACE);
}

#endif
