/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SCTP (RFC 9260): its header, and IPVS's view of it: one table of transitions by chunk
 * (net/netfilter/ipvs/ip_vs_proto_sctp.c defines what they are).
 */
#ifndef XLVS_SCTP_H
#define XLVS_SCTP_H

#include "state.h"

struct sctp_header {
	__be16 source;
	__be16 dest;
	__be32 tag;
	__u32 check; /* CRC32c, as crc32c.h has it */
};

struct sctp_chunk {
	__u8 type;
	__u8 flags;
	__be16 length;
};

/* What a packet means; packet.tcp holds it, and whether its first chunk is an ABORT. */
enum sctp_event {
	SCTP_DATA, /* and all that changes nothing */
	SCTP_INIT,
	SCTP_INIT_ACK,
	SCTP_COOKIE,
	SCTP_COOKIE_ACK,
	SCTP_SHUT,
	SCTP_SHUT_ACK,
	SCTP_SHUT_DONE,
	SCTP_ERROR,
	SCTP_ABORT,
	SCTP_NOTHING, /* no chunk at all */
};

#define SCTP_EVENT	 0x0f
#define SCTP_ABORT_FIRST 0x80

/* Chunk types (RFC 9260, 3.2). */
#define CHUNK_ABORT	 6
#define CHUNK_COOKIE	 10
#define CHUNK_COOKIE_ACK 11

static const __u8 sctp_event_of[16] = {
	[1] = SCTP_INIT,
	[2] = SCTP_INIT_ACK,
	[CHUNK_ABORT] = SCTP_ABORT,
	[7] = SCTP_SHUT,
	[8] = SCTP_SHUT_ACK,
	[9] = SCTP_ERROR,
	[CHUNK_COOKIE] = SCTP_COOKIE,
	[CHUNK_COOKIE_ACK] = SCTP_COOKIE_ACK,
	[14] = SCTP_SHUT_DONE,
};

/* Shorter names make the table readable; the columns are the old states. */
enum {
	NON = XLVS_SCTP_NONE,
	IN1 = XLVS_SCTP_INIT1,
	INI = XLVS_SCTP_INIT,
	CSE = XLVS_SCTP_COOKIE_SENT,
	CRE = XLVS_SCTP_COOKIE_REPLIED,
	CWA = XLVS_SCTP_COOKIE_WAIT,
	COO = XLVS_SCTP_COOKIE,
	CEC = XLVS_SCTP_COOKIE_ECHOED,
	EST = XLVS_SCTP_ESTABLISHED,
	SSE = XLVS_SCTP_SHUTDOWN_SENT,
	SRE = XLVS_SCTP_SHUTDOWN_RECEIVED,
	SAS = XLVS_SCTP_SHUTDOWN_ACK_SENT,
	REJ = XLVS_SCTP_REJECTED,
	CLO = XLVS_SCTP_CLOSED,
};

/* clang-format off */
static const __u8 sctp_next[4][SCTP_ABORT + 1][16] = {
	[VIEW_IN] = {
		/* from:             NON  IN1  INI  CSE  CRE  CWA  COO  CEC  EST  SSE  SRE  SAS  REJ  CLO */
		[SCTP_DATA] = { EST, IN1, INI, CSE, CRE, CWA, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_INIT] = { IN1, INI, INI, CSE, CRE, CWA, COO, CEC, EST, SSE, SRE, SAS, INI, INI },
		[SCTP_INIT_ACK] = { CWA, CWA, CWA, CSE, CRE, COO, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_COOKIE] = { CRE, INI, INI, CRE, CRE, CWA, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_COOKIE_ACK] = { EST, IN1, INI, CSE, CRE, CWA, COO, EST, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_SHUT] = { SRE, IN1, INI, CSE, CRE, CWA, COO, CEC, SRE, SSE, SRE, SAS, REJ, CLO },
		[SCTP_SHUT_ACK] = { CLO, INI, INI, CSE, CRE, CWA, COO, CEC, EST, CLO, SRE, CLO, REJ, CLO },
		[SCTP_SHUT_DONE] = { CLO, CLO, CLO, CSE, CRE, CWA, COO, CEC, EST, SSE, SRE, CLO, REJ, CLO },
		[SCTP_ERROR] = { CLO, IN1, INI, CSE, CRE, CWA, COO, CLO, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_ABORT] = { CLO, CLO, CLO, CLO, CLO, REJ, CLO, CLO, CLO, CLO, CLO, CLO, CLO, CLO },
	},
	[VIEW_OUT] = {
		/* from:             NON  IN1  INI  CSE  CRE  CWA  COO  CEC  EST  SSE  SRE  SAS  REJ  CLO */
		[SCTP_DATA] = { EST, IN1, INI, CSE, CRE, CWA, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_INIT] = { CWA, CWA, CWA, CWA, CWA, CWA, CWA, CWA, EST, CWA, CWA, CWA, CWA, CWA },
		[SCTP_INIT_ACK] = { CSE, CSE, CSE, CSE, CRE, CWA, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_COOKIE] = { CEC, CEC, CEC, CEC, CEC, CEC, CEC, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_COOKIE_ACK] = { EST, EST, EST, EST, EST, EST, EST, EST, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_SHUT] = { SSE, SSE, SSE, SSE, SSE, SSE, SSE, SSE, SSE, SSE, SRE, SAS, REJ, CLO },
		[SCTP_SHUT_ACK] = { SAS, SAS, SAS, SAS, SAS, CWA, COO, CEC, EST, SAS, SAS, SAS, REJ, CLO },
		[SCTP_SHUT_DONE] = { CLO, IN1, INI, CSE, CRE, CWA, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_ERROR] = { CLO, CLO, CLO, CLO, CLO, CWA, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_ABORT] = { CLO, REJ, CLO, CLO, CLO, CLO, CLO, CLO, CLO, CLO, CLO, CLO, CLO, CLO },
	},
	[VIEW_IN_ONLY] = {
		/* from:             NON  IN1  INI  CSE  CRE  CWA  COO  CEC  EST  SSE  SRE  SAS  REJ  CLO */
		[SCTP_DATA] = { EST, IN1, INI, CSE, CRE, EST, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_INIT] = { IN1, INI, INI, INI, INI, INI, COO, CEC, EST, SSE, SRE, SAS, INI, INI },
		[SCTP_INIT_ACK] = { CEC, CEC, CEC, CEC, CEC, CEC, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_COOKIE] = { EST, EST, EST, EST, EST, EST, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_COOKIE_ACK] = { EST, IN1, INI, EST, EST, CWA, EST, EST, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_SHUT] = { SRE, IN1, INI, CSE, CRE, CWA, COO, CEC, SRE, SSE, SRE, SAS, REJ, CLO },
		[SCTP_SHUT_ACK] = { CLO, INI, INI, CSE, CRE, CWA, COO, CEC, CLO, CLO, SRE, CLO, REJ, CLO },
		[SCTP_SHUT_DONE] = { CLO, CLO, CLO, CLO, CLO, CWA, COO, CEC, EST, SSE, CLO, CLO, REJ, CLO },
		[SCTP_ERROR] = { CLO, IN1, INI, CSE, CRE, CWA, COO, CEC, EST, SSE, SRE, SAS, REJ, CLO },
		[SCTP_ABORT] = { CLO, CLO, CLO, CLO, CLO, REJ, CLO, CLO, CLO, CLO, CLO, CLO, CLO, CLO },
	},
};
/* clang-format on */

/*
 * Ports and event of a packet whose addresses are parsed. Where a COOKIE chunk may be
 * followed by an ABORT, which then is what counts, *behind is the offset of that chunk's
 * header, else 0.
 */
static __always_inline bool parse_sctp(void *data, void *end, struct packet *p, __u32 *behind)
{
	struct sctp_header *header = data + l4_of(p);
	struct sctp_chunk *chunk = (void *)(header + 1);
	__u32 room = p->length - (p->l4 - p->l3), length;

	*behind = 0;
	if (room < sizeof(*header) || (void *)(header + 1) > end)
		return false;
	p->sport = header->source;
	p->dport = header->dest;
	p->tcp = SCTP_NOTHING;
	if (room < sizeof(*header) + sizeof(*chunk) || (void *)(chunk + 1) > end)
		return true;
	p->tcp = chunk->type < 16 ? sctp_event_of[chunk->type & 15] : SCTP_DATA;
	if (p->tcp == SCTP_ABORT)
		p->tcp |= SCTP_ABORT_FIRST;
	length = bpf_ntohs(chunk->length);
	if ((p->tcp == SCTP_COOKIE || p->tcp == SCTP_COOKIE_ACK) && length >= sizeof(*chunk)) {
		length = sizeof(*header) + ((length + 3) & ~3u); /* chunks are padded to words */
		if (room >= length + sizeof(*chunk))
			*behind = p->l4 + length;
	}
	return true;
}

static __always_inline void sctp_second_chunk(struct packet *p, const struct sctp_chunk *chunk)
{
	if (chunk->type == CHUNK_ABORT)
		p->tcp = SCTP_ABORT;
}

/* Whether IPVS makes an association's connection for this packet. */
static __always_inline bool sctp_starts(const struct packet *p, const struct xlvs_settings *set)
{
	if (set->sysctl.sloppy_sctp)
		return p->tcp != SCTP_NOTHING && !(p->tcp & SCTP_ABORT_FIRST);
	return p->tcp == SCTP_INIT;
}

/* Move the connection's state by one packet. */
static __always_inline void sctp_step(struct xlvs_conn *conn, const struct packet *p, bool reply,
				      const struct xlvs_settings *set)
{
	__u32 word = READ_ONCE(conn->state), event = p->tcp & SCTP_EVENT, next;

	if (word == XLVS_STATE_ENDED || event > SCTP_ABORT)
		return;
	next = sctp_next[view_of(conn, reply) & 3][event][word & 0xf];
	state_move(conn, word, next, next != XLVS_SCTP_ESTABLISHED, next == XLVS_SCTP_ESTABLISHED,
		   set->sctp_timeout[next & 0xf]);
}

#endif
