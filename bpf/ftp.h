/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * FTP through NAT: the job of the kernel's ip_vs_ftp, in a program of its own. Control
 * connections announce others. The client's PORT and EPRT name where the server will
 * connect to: the connection is made in advance. The server's 227 and 229, if the client
 * asked for them, name an address inside: the connection is made with the client's port
 * still open (XLVS_CONN_NO_CPORT), and the text is changed to the VIP. What that adds to
 * the server's stream or takes from it is made up for in all later sequence numbers.
 *
 * Everything happens between the packet's arrival and its forwarding; nobody waits, and
 * no process is needed.
 */
#ifndef XLVS_FTP_H
#define XLVS_FTP_H

#include "expect.h"
#include "ftp_shift.h"
#include "ftp_text.h"
#include "insert.h"
#include "known.h"
#include "tcp_options.h"

/* A segment of a control connection. */
struct ftp_segment {
	__u32 text;   /* where its text begins in the frame */
	__u32 length; /* of that text */
	__u32 read;   /* bytes of it in notes->payload */
	__u32 sequence;
	__u32 acknowledged;
};

static __always_inline bool ftp_segment_of(struct xdp_md *ctx, const struct packet *p,
					   struct ftp_segment *s)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + l4_of(p);
	__u32 headers, all;

	if ((void *)(tcp + 1) > end)
		return false;
	headers = tcp->doff * 4;
	all = l4_length(p);
	s->sequence = bpf_ntohl(tcp->seq);
	s->acknowledged = bpf_ntohl(tcp->ack_seq);
	s->text = l4_of(p) + headers;
	s->length = headers >= sizeof(*tcp) && all > headers ? all - headers : 0;
	return true;
}

/* The text of the segment, as far as it is looked at, into notes->payload. */
static __always_inline bool ftp_load_text(struct xdp_md *ctx, struct ftp_segment *s,
					  struct xlvs_scratch *notes)
{
	__u32 size = s->length < PAYLOAD_SIZE ? s->length : PAYLOAD_SIZE - 1;

	if (!size)
		return false;
	s->read = size;
	size = ((size - 1) & (PAYLOAD_SIZE - 1)) + 1;
	return !bpf_xdp_load_bytes(ctx, s->text, notes->payload, size);
}

/*
 * Make a connection that the control connection announced, and have it hang on that one.
 * Its key and its server are in notes->birth. false where the table is full.
 */
static __always_inline bool ftp_announce(const struct flow *control, __be16 dport, __u32 flags,
					 struct xlvs_scratch *notes,
					 const struct xlvs_settings *set)
{
	struct xlvs_conn *by = control->conn;
	struct birth *birth = &notes->birth;
	int made;

	copy_address(birth->client, birth->tuple.saddr);
	birth->dest = by->dest;
	birth->flags = (by->flags & XLVS_CONN_METHOD) | flags;
	birth->timeout = set->tcp_timeout[XLVS_TCP_LISTEN];
	birth->fwmark = by->fwmark;
	birth->template_slot = control->ref & XLVS_REF_SLOT;
	birth->template_phase = control->generation | XLVS_LIVE;
	birth->dport = dport;
	birth->family = by->family;
	birth->announced = true;
	__sync_fetch_and_add(&by->controlled, 1);
	made = conn_create();
	birth->announced = false;
	return made == CREATED;
}

/* Whether a data connection has ended, or was announced and never begun. */
static __always_inline bool ftp_spent(const struct xlvs_conn *conn)
{
	__u32 state = READ_ONCE(conn->state) & 0xf;

	return state == XLVS_TCP_TIME_WAIT || state == XLVS_TCP_CLOSE || state == XLVS_TCP_LISTEN;
}

/*
 * The client has named an address and port of its own: the server will connect to them. What
 * another server had with that port is in the way only while it lasts; IPVS would keep it,
 * and not know the new server's packets.
 */
static __always_inline bool ftp_await_server(const struct flow *control, const struct ftp_reader *r,
					     struct xlvs_scratch *notes,
					     const struct xlvs_settings *set)
{
	struct xlvs_conn *by = control->conn, *conn;
	struct xlvs_key6 *tuple = &notes->birth.tuple;
	__u32 slot;

	__builtin_memset(tuple, 0, sizeof(*tuple));
	ftp_address(r, tuple->saddr);
	copy_address(tuple->daddr, by->vaddr);
	tuple->sport = bpf_htons(r->port);
	tuple->dport = bpf_htons(bpf_ntohs(by->vport) - 1); /* FTP's data port is one less */
	tuple->protocol = IPPROTO_TCP;
	conn = conn_under(tuple, by->family, notes, &slot);
	if (conn && (same_address(conn->daddr, by->daddr, by->family) || !ftp_spent(conn))) {
		conn_listen(conn, set);
		return true;
	}
	if (conn)
		conn_end(conn, slot);
	copy_address(notes->birth.server, by->daddr);
	notes->birth.older = 0;
	return ftp_announce(control, bpf_htons(bpf_ntohs(by->dport) - 1), 0, notes, set);
}

/* The server has named an address and port of its own: the client will connect to them. */
static __always_inline bool ftp_await_client(const struct flow *control, const struct ftp_reader *r,
					     struct xlvs_scratch *notes, struct xlvs_settings *set)
{
	struct xlvs_conn *by = control->conn, *conn;
	struct birth *birth = &notes->birth;
	__be16 port = bpf_htons(r->port);
	__u32 slot;

	if (r->sentence == SAYS_227 || r->addressed)
		ftp_address(r, birth->server);
	else
		copy_address(birth->server, by->daddr);
	tuple_of_expected(by->caddr, by->vaddr, port, &birth->tuple);
	conn = conn_under(&birth->tuple, by->family, notes, &slot);
	if (conn && same_address(conn->daddr, birth->server, by->family)) {
		conn_listen(conn, set);
		return true;
	}
	birth->older = 0;
	if (conn) { /* another server's: the newest is the first to be met, as in IPVS */
		index_remove(&birth->tuple, by->family, slot);
		birth->older = slot + 1;
	}
	__sync_fetch_and_add(&set->expected, 1); /* taken back when it ends */
	if (ftp_announce(control, port, XLVS_CONN_NO_CPORT, notes, set))
		return true;
	if (conn) /* no room: the older one is met as before */
		index_insert(&birth->tuple, by->family, slot, BPF_NOEXIST);
	return false;
}

/* Put the text in notes->made in place of what was read; false where there is no room. */
static __always_inline bool ftp_replace(struct xdp_md *ctx, const struct packet *p,
					const struct ftp_segment *s, const struct ftp_reader *r,
					struct xlvs_scratch *notes, __u32 made)
{
	__s32 grown = made - (r->end - r->start);
	__u32 headers = ((s->text - 1) & (HEADERS_SIZE - 1)) + 1;
	__u32 before = ((r->start - 1) & (PAYLOAD_SIZE - 1)) + 1;

	/* By growing or shrinking at the front: only there a driver is sure to have room. */
	if (bpf_xdp_load_bytes(ctx, 0, notes->headers, headers) ||
	    bpf_xdp_adjust_head(ctx, -grown) ||
	    bpf_xdp_store_bytes(ctx, 0, notes->headers, headers) ||
	    bpf_xdp_store_bytes(ctx, headers, notes->payload, before) ||
	    bpf_xdp_store_bytes(ctx, headers + before, notes->made,
				((made - 1) & (MADE_SIZE - 1)) + 1))
		return false;
	return ip_resize(ctx, p, grown);
}

/*
 * Which sentence of the server's this may be: one that the client asked for, or the last
 * one that was rewritten, sent again. FTP_ACTIVE: none.
 */
static __always_inline enum ftp_mode ftp_awaited(const struct xlvs_conn *conn,
						 const struct ftp_segment *s, bool *again)
{
	__u32 word = conn->ftp;

	*again = word >> 8 && s->sequence == conn->seq_base;
	if (*again)
		return word >> 8 & 0xff;
	if ((READ_ONCE(conn->state) & 0xf) != XLVS_TCP_ESTABLISHED)
		return FTP_ACTIVE;
	return word & 0xff;
}

/* The server's announcement, if it is one: note it, and name the VIP in it. */
static __always_inline enum xlvs_outcome
ftp_announcement(struct xdp_md *ctx, struct packet *p, const struct flow *flow,
		 struct ftp_segment *s, struct xlvs_scratch *notes, struct xlvs_settings *set)
{
	struct xlvs_conn *conn = flow->conn;
	bool again, extended;
	enum ftp_mode mode = ftp_awaited(conn, s, &again);
	const struct ftp_reader *r = &notes->ftp.reader;
	__u32 made;

	if (mode == FTP_ACTIVE || !ftp_load_text(ctx, s, notes))
		return XLVS_FORWARDED;
	extended = mode == FTP_EXTENDED;
	if (!ftp_read(extended ? SAYS_229 : SAYS_227, p->family,
		      FTP_WORD('2', '2', extended ? '9' : '7', ' '), ~0u, s->read))
		return XLVS_FORWARDED;
	if (!again && set->flags & XLVS_MIGRATING)
		return XLVS_DROP_MIGRATING;
	if (!again && !ftp_await_client(flow, r, notes, set))
		return XLVS_DROP_TABLE_FULL;
	made = ftp_write(notes, conn->vaddr, bpf_htons(r->port), extended);
	if (!ftp_replace(ctx, p, s, r, notes, made))
		return XLVS_DROP_MALFORMED;
	if (!again) {
		ftp_note_shift(conn, s->sequence, made - (r->end - r->start));
		conn->ftp = FTP_ACTIVE | (__u32)mode << 8;
	}
	if (parse_xdp(ctx, p) != PARSED_FLOW || !checksum_write(ctx, p, p->saddr, p->daddr))
		return XLVS_DROP_MALFORMED;
	return XLVS_FORWARDED;
}

/* What the server says. */
static __always_inline enum xlvs_outcome ftp_reply(struct xdp_md *ctx, struct packet *p,
						   const struct flow *flow,
						   struct xlvs_scratch *notes,
						   struct xlvs_settings *set)
{
	struct ftp_segment s = {};
	enum xlvs_outcome outcome;
	__u32 added;

	if (!segment_intact(ctx, p) || !ftp_segment_of(ctx, p, &s))
		return XLVS_DROP_MALFORMED;
	outcome = ftp_announcement(ctx, p, flow, &s, notes, set);
	if (outcome != XLVS_FORWARDED)
		return outcome;
	added = ftp_added(flow->conn, s.sequence);
	if (added && !tcp_store(ctx, p, l4_of(p) + 4, s.sequence + added))
		return XLVS_DROP_MALFORMED;
	return XLVS_FORWARDED;
}

/* A command of the client's about its data connections, if it is one. */
static __always_inline bool ftp_command(struct xdp_md *ctx, const struct packet *p,
					const struct flow *flow, struct ftp_segment *s,
					struct xlvs_scratch *notes, const struct xlvs_settings *set)
{
	struct xlvs_conn *conn = flow->conn;
	const struct ftp_search *search = &notes->ftp.search;
	__u32 sentence = SAYS_EPRT, word = FTP_WORD('E', 'P', 'R', 'T');

	/* In IPVS the state has moved already when a client's packet is read. */
	if (tcp_after(conn, p, false, set) != XLVS_TCP_ESTABLISHED || !ftp_load_text(ctx, s, notes))
		return true;
	ftp_search(p->family, s->read);
	if (search->found)
		conn->ftp = (conn->ftp & ~0xffu) | search->mode;
	if (search->found || search->over)
		return true;
	if (p->family == XLVS_IPV4 &&
	    (*(__u32 *)notes->payload & FTP_NO_CASE) == FTP_WORD('P', 'O', 'R', 'T')) {
		word = FTP_WORD('P', 'O', 'R', 'T');
		sentence = SAYS_PORT;
	}
	if (!ftp_read(sentence, p->family, word, FTP_NO_CASE, s->read))
		return true;
	conn->ftp = (conn->ftp & ~0xffu) | FTP_ACTIVE;
	return ftp_await_server(flow, &notes->ftp.reader, notes, set);
}

/* What the client says. */
static __always_inline enum xlvs_outcome ftp_request(struct xdp_md *ctx, const struct packet *p,
						     const struct flow *flow,
						     struct xlvs_scratch *notes,
						     const struct xlvs_settings *set)
{
	struct xlvs_conn *conn = flow->conn;
	struct ftp_segment s = {};
	__u32 place;

	if (!segment_intact(ctx, p) || !ftp_segment_of(ctx, p, &s))
		return XLVS_DROP_MALFORMED;
	if (!ftp_command(ctx, p, flow, &s, notes, set))
		return XLVS_DROP_TABLE_FULL;
	if (likely(!(conn->seq_out | conn->seq_before)) || !(p->tcp & TCP_ACK))
		return XLVS_FORWARDED;
	place = ftp_unshift(conn, s.acknowledged);
	if (place != s.acknowledged && !tcp_store(ctx, p, l4_of(p) + 8, place))
		return XLVS_DROP_MALFORMED;
	return XLVS_FORWARDED;
}

/* IPVS drops a client's packet after it was counted, and a server's before. */
static __always_inline int ftp_drop(const struct packet *p, const struct flow *flow,
				    enum xlvs_outcome outcome, const struct xlvs_settings *set)
{
	__u32 row = flow->conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);

	if (!is_reply(flow)) {
		if (dest && dest->flags & XLVS_DEST_AVAILABLE)
			account(dest, row, false, p->length);
		touch(flow->conn, p, false, set);
	}
	return drop_as(outcome);
}

/* Read along, and leave the forwarding to the special program. */
static __always_inline int ftp_read_along(struct xdp_md *ctx, struct packet *p,
					  const struct flow *flow, struct xlvs_scratch *notes,
					  struct xlvs_settings *set)
{
	enum xlvs_outcome outcome;

	if (p->ttl <= 1)
		outcome = XLVS_FORWARDED; /* to its end: the error quotes it as it came */
	else if (is_reply(flow))
		outcome = ftp_reply(ctx, p, flow, notes, set);
	else
		outcome = ftp_request(ctx, p, flow, notes, set);
	if (outcome != XLVS_FORWARDED)
		return ftp_drop(p, flow, outcome, set);
	notes->ftp.read = 1;
	bpf_tail_call(ctx, &programs, XLVS_PROG_SPECIAL);
	return drop_as(XLVS_DROP_RACE);
}

static __always_inline int handle_ftp(struct xdp_md *ctx, struct xlvs_scratch *notes,
				      struct xlvs_settings *set)
{
	struct packet p = {};
	struct flow flow;

	if (parse_xdp(ctx, &p) != PARSED_FLOW) /* in parts, or behind extension headers: unread */
		bpf_tail_call(ctx, &programs, XLVS_PROG_RELAY);
	else if (conn_find(&p, &flow))
		return ftp_read_along(ctx, &p, &flow, notes, set);
	return drop_as(XLVS_DROP_RACE);
}

#endif
