/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What NAT and FULLNAT make of a packet: the addresses, ports and sequence numbers that it
 * has on the other side of the director. FULLNAT numbers a client's segments anew (local.h),
 * SYNPROXY the server's: such connections are marked XLVS_CONN_SHIFTED.
 */
#ifndef XLVS_ENDS_H
#define XLVS_ENDS_H

#include "local.h"
#include "tcp.h"
#include "forward/nat.h"

#define PLAIN_HEADER 5 /* words of a TCP header without options */

/* What is added to the numbers of a segment, on its way in or out. FTP's program shifts its own. */
static __always_inline void shift_numbers(const struct xlvs_conn *conn, bool reply,
					  struct translation *t)
{
	__u32 in = conn->seq_in, out = conn->flags & XLVS_CONN_WATCHED ? 0 : conn->seq_out;

	t->sequence = reply ? out : in;
	t->acknowledged = -(reply ? in : out);
}

/* A client's packet as its real server is to see it. */
static __always_inline void ends_inside(const struct packet *p, const struct xlvs_conn *conn,
					struct translation *t)
{
	bool local = has_local(conn->flags);

	t->sport = local ? conn->lport : p->sport;
	t->dport = conn->dport;
	set_address(t->saddr, local ? conn->laddr : p->saddr, p->family);
	set_address(t->daddr, conn->daddr, p->family);
	if (conn->flags & XLVS_CONN_SHIFTED)
		shift_numbers(conn, false, t);
}

/* A real server's packet as the client is to see it. */
static __always_inline void ends_outside(const struct packet *p, const struct xlvs_conn *conn,
					 struct translation *t)
{
	bool local = has_local(conn->flags);

	t->sport = conn->vport;
	t->dport = local ? conn->cport : p->dport;
	set_address(t->saddr, conn->vaddr, p->family);
	set_address(t->daddr, local ? conn->caddr : p->daddr, p->family);
	if (conn->flags & XLVS_CONN_SHIFTED)
		shift_numbers(conn, true, t);
}

/* Who refuses a real server's packet, in its eyes: the one that it wrote to, if it did so. */
static __always_inline const __u8 *refuser(const struct packet *p, const struct xlvs_conn *conn)
{
	return has_local(conn->flags) ? p->daddr : conn->vaddr;
}

/*
 * Note what a segment acknowledges (conn.edge_in, conn.edge_out): that is where its sender
 * believes a reset. False where options follow, that may hold such numbers, too.
 */
static __always_inline bool note_edge(struct xdp_md *ctx, const struct packet *p,
				      struct xlvs_conn *conn, bool reply)
{
	struct tcphdr *tcp = data_of(ctx) + l4_of(p);
	__u32 edge;

	if ((void *)(tcp + 1) > end_of(ctx))
		return false;
	if (p->tcp & TCP_ACK && !(READ_ONCE(conn->flags) & XLVS_CONN_OPENING)) {
		edge = bpf_ntohl(tcp->ack_seq);
		if (reply)
			conn->edge_out = edge;
		else
			conn->edge_in = edge;
	}
	return ((__u8 *)tcp)[12] >> 4 == PLAIN_HEADER;
}

/* States in which a SYN begins another connection. */
#define TCP_OVER_STATES                                                                \
	((1 << XLVS_TCP_NONE) | (1 << XLVS_TCP_FIN_WAIT) | (1 << XLVS_TCP_TIME_WAIT) | \
	 (1 << XLVS_TCP_CLOSE) | (1 << XLVS_TCP_CLOSE_WAIT) | (1 << XLVS_TCP_LAST_ACK))
#define SEQUENCE_GAP 0x10000 /* beyond all that the old connection's window let be sent */

/*
 * A client's SYN, of that number, on a connection that is over as it stands (and that
 * conn_reuse_mode leaves in place): it is opened anew, and a server that knows a local address
 * must see numbers that climb. noted: the SYN has moved the state.
 */
static __always_inline void reopen(struct xlvs_conn *conn, __u32 asked, bool noted,
				   const struct xlvs_settings *set)
{
	__u32 flags = READ_ONCE(conn->flags), last = conn->edge_out, first;
	__u32 word = READ_ONCE(conn->state), state = noted ? word >> 8 : word;
	bool rebased = has_local(flags) && flags & XLVS_CONN_SHIFTED;

	if (!(rebased || flags & (XLVS_CONN_TOA | XLVS_CONN_PROXY)) ||
	    !(TCP_OVER_STATES >> (state & 0xf) & 1))
		return;
	if (rebased) {
		first = initial_sequence(conn, set);
		if (!(flags & XLVS_CONN_OPENING) && (__s32)(first - last) < SEQUENCE_GAP)
			first = last + SEQUENCE_GAP;
		conn->seq_in = first - asked + proxy_size(flags, conn->family);
	}
	__sync_fetch_and_or(&conn->flags, XLVS_CONN_OPENING);
}

/*
 * What a segment that is not the fast path's leaves on such a connection. A global function:
 * verified once.
 */
__noinline int note_numbers(struct xdp_md *ctx, const struct packet *p, struct xlvs_conn *conn,
			    __u32 reply)
{
	if (p && conn && conn->flags & XLVS_CONN_SHIFTED)
		note_edge(ctx, p, conn, reply);
	return 0;
}

#endif
