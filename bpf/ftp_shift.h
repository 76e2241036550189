/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sequence numbers of a control connection whose server's replies were rewritten: what
 * they grew or shrank by is added to the server's numbers, and taken off the client's
 * acknowledgements; off the selective ones by the opening program.
 */
#ifndef XLVS_FTP_SHIFT_H
#define XLVS_FTP_SHIFT_H

#include "conn.h"

/*
 * What the rewritten replies have added to the server's stream in front of a place in it:
 * up to the last of them (included) less than behind it (struct nf_ct_seqadj).
 */
static __always_inline __u32 ftp_added(const struct xlvs_conn *conn, __u32 place)
{
	return (__s32)(place - conn->seq_base) > 0 ? conn->seq_out : conn->seq_before;
}

/* The same, taken off a place in the stream as the client sees it. */
static __always_inline __u32 ftp_unshift(const struct xlvs_conn *conn, __u32 place)
{
	return place - ftp_added(conn, place - conn->seq_before);
}

/* Note a rewritten reply; in this order, for another CPU may be reading. */
static __always_inline void ftp_note_shift(struct xlvs_conn *conn, __u32 sequence, __u32 grown)
{
	WRITE_ONCE(conn->seq_before, conn->seq_out);
	WRITE_ONCE(conn->seq_base, sequence);
	WRITE_ONCE(conn->seq_out, conn->seq_out + grown);
}

#endif
