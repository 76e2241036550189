/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Timestamps (RFC 7323) of connections that SYNPROXY made. The client was given the director's
 * clock for the real server's, before anybody knew that: what the server says is shifted by
 * the difference, and what the client echoes is shifted back. So both ends see one clock that
 * climbs, which is all that they may expect. FULLNAT lets nobody have timestamps.
 */
#ifndef XLVS_STAMPS_H
#define XLVS_STAMPS_H

#include "tcp_options.h"

/* At conn.laddr, which only FULLNAT has. */
struct stamps {
	__u32 told;   /* to the client, in the SYN-ACK */
	__u32 client; /* the client's own, when it took that */
	__u32 shift;  /* added to the real server's (XLVS_CONN_STAMPED) */
	__u32 pad;
};

_Static_assert(sizeof(struct stamps) <= sizeof(((struct xlvs_conn *)0)->laddr), "its place");

static __always_inline struct stamps *stamps_of(const struct xlvs_conn *conn)
{
	return (struct stamps *)conn->laddr;
}

/* Which of an option's two stamps changes: a server's own, and a client's echo of that. */
static __always_inline __u32 stamp_place(bool reply)
{
	return reply ? 0 : 4;
}

/* The number that is in that place for the other end; without an ACK nothing is echoed. */
static __always_inline __be32 stamp_shifted(__be32 stamp, const struct packet *p, bool reply,
					    __u32 shift)
{
	if (!reply && !(p->tcp & TCP_ACK))
		return stamp;
	return bpf_htonl(bpf_ntohl(stamp) + (reply ? shift : -shift));
}

/* Shift those among a segment's edited options. */
static __always_inline void stamps_shift(struct option_edit *e, const struct packet *p, bool reply,
					 __u32 shift)
{
	__be32 *stamp = (void *)(e->is + ((e->stamps + stamp_place(reply)) & OPTION_PLACE));

	*stamp = stamp_shifted(*stamp, p, reply, shift);
}

/*
 * Shift those of a segment that has no option but them, as nearly all; false where it is not
 * such a one. For a shift of 0 it only looks.
 */
static __noinline bool stamps_shift_plain(struct xdp_md *ctx, const struct packet *p, bool reply,
					  __u32 shift)
{
	void *data = data_of(ctx);
	struct tcphdr *tcp = data + l4_of(p);
	__be32 *option = (void *)(tcp + 1), *stamp, old;

	if ((void *)(option + 3) > end_of(ctx) || ((__u8 *)tcp)[12] >> 4 != PLAIN_WORDS ||
	    option[0] != bpf_htonl(PLAIN_TIMESTAMPS))
		return false;
	if (!shift)
		return true;
	stamp = reply ? option + 1 : option + 2;
	old = *stamp;
	*stamp = stamp_shifted(old, p, reply, shift);
	if (!checksum_partial(p, tcp->check))
		tcp->check = csum_replace(tcp->check, old, *stamp);
	return true;
}

#endif
