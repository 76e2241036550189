/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sequence numbers of a control connection whose server's replies were rewritten: what
 * they grew or shrank by is added to the server's numbers, and taken off the client's
 * acknowledgements, the selective ones included.
 */
#ifndef XLVS_FTP_SHIFT_H
#define XLVS_FTP_SHIFT_H

#include "checksum.h"
#include "conn.h"

#define TCP_OPTIONS	40
#define TCP_OPTION_END	0
#define TCP_OPTION_NOP	1
#define TCP_OPTION_SACK 5 /* RFC 2018 */
#define SACK_EDGES	8 /* of at most four blocks */

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

/* Store a number of the TCP header or its options, and correct the checksum. */
static __noinline bool tcp_store(struct xdp_md *ctx, const struct packet *p, __u32 at, __u32 number)
{
	__be32 old, new = bpf_htonl(number);
	__u16 *check, was, is;

	if (bpf_xdp_load_bytes(ctx, at, &old, sizeof(old)) ||
	    bpf_xdp_store_bytes(ctx, at, &new, sizeof(new)))
		return false;
	check = check_field((void *)(long)ctx->data, (void *)(long)ctx->data_end, p);
	if (!check)
		return false;
	if (checksum_partial(p, *check))
		return true;
	was = csum_fold(old);
	is = csum_fold(new);
	if ((at - p->l4) & 1) { /* options need not lie on words */
		was = bpf_ntohs(was);
		is = bpf_ntohs(is);
	}
	*check = csum_replace(*check, was, is);
	return true;
}

static long find_sack(__u32 at, void *unused)
{
	struct xlvs_scratch *notes = scratch_get();
	struct option_walk *walk;
	__u8 kind, size;

	if (!notes)
		return 1;
	walk = &notes->ftp.walk;
	if (at < walk->next)
		return 0;
	kind = notes->payload[at & (PAYLOAD_SIZE - 1)];
	if (kind == TCP_OPTION_END)
		return 1;
	if (kind == TCP_OPTION_NOP)
		return 0;
	size = notes->payload[(at + 1) & (PAYLOAD_SIZE - 1)];
	if (size < 2 || at + size > walk->length)
		return 1;
	walk->next = at + size;
	if (kind != TCP_OPTION_SACK)
		return 0;
	walk->sack = at + 2;
	walk->blocks = (size - 2) / 8;
	return 1;
}

/* Selective acknowledgements are of the server's stream, too. */
static __always_inline bool ftp_unshift_sack(struct xdp_md *ctx, const struct packet *p,
					     const struct xlvs_conn *conn, __u32 text,
					     struct xlvs_scratch *notes)
{
	__u32 first = l4_of(p) + sizeof(struct tcphdr), at;
	struct option_walk *walk = &notes->ftp.walk;
	__u32 length = text - first;
	__be32 edge;

	if (!length || length > TCP_OPTIONS)
		return true;
	if (bpf_xdp_load_bytes(ctx, first, notes->payload, ((length - 1) & 63) + 1))
		return false;
	__builtin_memset(walk, 0, sizeof(*walk));
	walk->length = length;
	bpf_loop(length, find_sack, 0, 0);
	for (__u32 i = 0; i < SACK_EDGES; i++) {
		if (!walk->sack || i >= walk->blocks * 2)
			break;
		at = first + walk->sack + i * 4;
		if (bpf_xdp_load_bytes(ctx, at, &edge, sizeof(edge)) ||
		    !tcp_store(ctx, p, at, ftp_unshift(conn, bpf_ntohl(edge))))
			return false;
	}
	return true;
}

/* Note a rewritten reply; in this order, for another CPU may be reading. */
static __always_inline void ftp_note_shift(struct xlvs_conn *conn, __u32 sequence, __u32 grown)
{
	WRITE_ONCE(conn->seq_before, conn->seq_out);
	WRITE_ONCE(conn->seq_base, sequence);
	WRITE_ONCE(conn->seq_out, conn->seq_out + grown);
}

#endif
