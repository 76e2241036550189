/* SPDX-License-Identifier: GPL-2.0-only */
/* A new connection's first packet on the addresses of an old connection. */
#ifndef XLVS_REUSE_H
#define XLVS_REUSE_H

#include "conn.h"
#include "sctp.h"

/*
 * Whether a SYN (or INIT) on a connection ends it, to be scheduled afresh (ip_vs_in): where it is
 * over as far as the director saw (conn_reuse_mode), unless it hangs on another; and where
 * its server is quiesced (expire_nodest_conn).
 */
static __always_inline bool reuses(const struct flow *flow, const struct xlvs_settings *set)
{
	const struct xlvs_conn *conn = flow->conn;
	__u32 state = conn->state & 0xf, row = conn->dest;
	__s32 mode = set->sysctl.conn_reuse_mode;
	struct xlvs_dest *dest;

	if (set->sysctl.expire_nodest_conn) {
		dest = bpf_map_lookup_elem(&dests, &row);
		if (dest && !dest->weight)
			return true;
	}
	if (!mode || conn->template_phase)
		return false;
	if (conn->protocol == IPPROTO_SCTP)
		return state == XLVS_SCTP_CLOSED;
	if (state == XLVS_TCP_TIME_WAIT || state == XLVS_TCP_CLOSE)
		return true;
	return mode & 2 && state == XLVS_TCP_FIN_WAIT && !has_reply_key(conn->flags);
}

static __always_inline bool reused_port(const struct packet *p, const struct flow *flow,
					const struct xlvs_settings *set)
{
	return unlikely(p->tcp & TCP_SYN) && !is_reply(flow) && reuses(flow, set);
}

/* The same for SCTP's INIT, too. */
static __always_inline bool reused(const struct packet *p, const struct flow *flow,
				   const struct xlvs_settings *set)
{
	if (p->protocol != IPPROTO_SCTP)
		return reused_port(p, flow, set);
	return p->tcp == SCTP_INIT && !is_reply(flow) && reuses(flow, set);
}

/*
 * Out of the way of its successor. One that others hang on (an FTP control connection)
 * loses its keys but lives on until they have ended, and is listed.
 */
static __always_inline void conn_replace(const struct flow *flow)
{
	__u32 slot = flow->ref & XLVS_REF_SLOT;
	struct xlvs_key6 tuple;

	if (likely(!READ_ONCE(flow->conn->controlled))) {
		conn_end(flow->conn, slot);
		return;
	}
	tuple_of_reply(flow->conn, &tuple);
	index_remove(&tuple, flow->conn->server_family, slot | XLVS_REF_REPLY);
	tuple_of_request(flow->conn, &tuple);
	index_remove(&tuple, flow->conn->family, slot);
}

#endif
