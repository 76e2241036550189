/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Half-open connections of SYNPROXY: marked, in SYN_SENT, and counted at their real server
 * (half_open of its load) from their birth until whoever takes the mark away.
 */
#ifndef XLVS_HALF_OPEN_H
#define XLVS_HALF_OPEN_H

#include "state.h"

#define LONGEST_WAIT 5 /* 32 seconds, as a power of two: between one SYN and the next */

static __always_inline bool is_half_open(const struct xlvs_conn *conn)
{
	return READ_ONCE(conn->flags) & XLVS_CONN_HALF_OPEN;
}

/*
 * Whether the last SYN has waited long enough, twice as long each time, for another one, or
 * for the end if that was the last.
 */
static __always_inline bool half_open_due(const struct xlvs_conn *conn, __u32 time, __u32 second)
{
	__u32 sent = conn->ftp & 0xff, wait = sent ? sent - 1 : 0;

	if (wait > LONGEST_WAIT)
		wait = LONGEST_WAIT;
	return time - READ_ONCE(conn->seen) >= second << wait;
}

/* Whether the real server has had all its SYNs, and time to answer the last. */
static __always_inline bool half_open_spent(const struct xlvs_conn *conn,
					    const struct xlvs_settings *set)
{
	return (conn->ftp & 0xff) > (__u32)set->sysctl.synproxy_retries &&
	       half_open_due(conn, now(), set->hz);
}

/* From here on the fast path's; what each end acknowledged takes the place of their first numbers. */
static __always_inline void opening_over(struct xlvs_conn *conn)
{
	__u32 client = conn->edge_in;

	__sync_fetch_and_and(&conn->flags, ~XLVS_CONN_OPENING);
	WRITE_ONCE(conn->edge_in, conn->seq_base + 1);
	WRITE_ONCE(conn->edge_out, client + conn->seq_in + 1);
}

/* Move it on from SYN_SENT; true for the one who did, and false where it has been moved. */
static __always_inline bool half_open_over(struct xlvs_conn *conn, __u32 next,
					   const struct xlvs_settings *set)
{
	bool open = next == XLVS_TCP_ESTABLISHED;
	__u32 word;

	if (!half_open_end(conn))
		return false;
	word = READ_ONCE(conn->state);
	if (word != XLVS_STATE_ENDED)
		state_move(conn, word, next, !open, open, set->tcp_timeout[next & 0xf]);
	conn->seen = now();
	if (!open || !(conn->flags & (XLVS_CONN_TOA | XLVS_CONN_PROXY)))
		opening_over(conn);
	return true;
}

#endif
