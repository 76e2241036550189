/* SPDX-License-Identifier: GPL-2.0-only */
/* How far a connection's opening has come, and the PROXY header's place in the client's stream. */
#ifndef XLVS_OPENED_H
#define XLVS_OPENED_H

#include "conn.h"

struct segment {
	__u32 sequence;
	__u32 acknowledged;
	__u32 options; /* bytes of them, and ... */
	__u32 payload;
	__u32 flags; /* its connection's, and while that is being opened ... */
	__u32 first; /* ... the client's initial sequence number */
	bool whole;  /* no fragment */
};

/* A connection's flags, and what its edges are by them. */
static __always_inline void opening_of(const struct xlvs_conn *conn, struct segment *s)
{
	s->first = READ_ONCE(conn->edge_in);
	barrier();
	s->flags = READ_ONCE(conn->flags); /* looked at last: they say whether that was one */
}

/*
 * Where the director's header in front of the payload begins in the client's stream as the
 * server knows it, which is where the payload would begin without.
 */
static __always_inline __u32 header_place(const struct xlvs_conn *conn, const struct segment *s)
{
	return s->first + 1 + syn_shift(conn);
}

/* Whether a place in that stream is in the header. */
static __always_inline bool in_header(const struct xlvs_conn *conn, const struct segment *s,
				      __u32 place)
{
	return s->flags & XLVS_CONN_OPENING &&
	       place - header_place(conn, s) < proxy_size(s->flags, conn->family);
}

/* What a server acknowledges of the header, it acknowledges up to the client's payload. */
static __always_inline bool acknowledges_header(const struct xlvs_conn *conn,
						const struct packet *p, const struct segment *s)
{
	return p->tcp & TCP_ACK && in_header(conn, s, s->acknowledged);
}

/*
 * Whether the server has said what it says to nobody who has not opened the connection; or,
 * where it is told by a header, that it has all of that.
 */
static __always_inline bool is_opened(const struct xlvs_conn *conn, const struct packet *p,
				      const struct segment *s)
{
	__u32 size = proxy_size(s->flags, conn->family);
	__s32 ahead = s->acknowledged - (header_place(conn, s) + size);

	if (p->tcp & (TCP_SYN | TCP_RST))
		return false;
	if (size)
		return p->tcp & TCP_ACK && ahead >= 0;
	return s->payload || p->tcp & TCP_FIN || ahead > 0;
}

/* From now on the edges are what was acknowledged last: by the client, the server's SYN. */
static __always_inline void opened(struct xlvs_conn *conn)
{
	__u32 first = conn->edge_out;

	__sync_fetch_and_and(&conn->flags, ~XLVS_CONN_OPENING);
	conn->edge_in = first + conn->seq_out + 1;
}

#endif
