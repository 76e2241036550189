/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TCP's options, in a program of its own that the fast path leaves rare segments to: all of a
 * connection that is being opened, those with options that only a walk understands, and those
 * with selective acknowledgements where sequence numbers are shifted.
 *
 * It makes a segment such that forwarding need not know: the relay program (of FTP, that one)
 * translates it as any other, and adds the shifts to its two numbers.
 *
 * While a connection is being opened, each segment of the client's tells its address, for
 * nobody knows which of them will be the one that the server opens it by. Only what the server
 * says ends that: a client that could would go by without its name.
 */
#ifndef XLVS_OPENING_H
#define XLVS_OPENING_H

#include "ftp_shift.h"
#include "opened.h"
#include "proxy.h"
#include "relay.h"
#include "relay_on.h"
#include "stamps.h"
#include "toa.h"
#include "uoa.h"
#include "window.h"

/* MSS is what a packet's headers without options leave (RFC 6691). */
#define HEADERS4 40
#define HEADERS6 60

/* What a segment's header says; false where its lengths are impossible. */
static __always_inline bool segment_read(struct xdp_md *ctx, const struct packet *p,
					 struct segment *s)
{
	void *data = data_of(ctx), *end = end_of(ctx);
	struct tcphdr *tcp = data + l4_of(p);
	__u32 size, all = l4_length(p);

	if ((void *)(tcp + 1) > end)
		return false;
	size = tcp->doff * 4;
	if (size < sizeof(*tcp) || size > all)
		return false;
	s->sequence = bpf_ntohl(tcp->seq);
	s->acknowledged = bpf_ntohl(tcp->ack_seq);
	s->options = size - sizeof(*tcp);
	s->payload = all - size;
	return true;
}

/* Write edited options back, in their place; whole: the checksum is over this frame. */
static __always_inline bool options_store(struct xdp_md *ctx, const struct packet *p,
					  struct option_edit *e, bool whole)
{
	__u16 *check;

	if (bpf_xdp_store_bytes(ctx, options_at(p), e->is, ((e->length - 1) & OPTION_PLACE) + 1))
		return false;
	check = check_field(data_of(ctx), end_of(ctx), p);
	if (!check)
		return false;
	if (!whole || !checksum_partial(p, *check))
		*check = csum_replace(*check, options_sum(e->was), options_sum(e->is));
	return true;
}

/* An edge of a selective acknowledgement, as the other end knows that place in its stream. */
static __always_inline __u32 sack_edge(const struct xlvs_conn *conn, const struct segment *s,
				       __u32 edge, bool reply)
{
	if (!reply)
		return ftp_unshift(conn, edge);
	return in_header(conn, s, edge) ? s->first + 1 : edge - conn->seq_in;
}

/* What is acknowledged of the header alone is nothing that the client has sent. */
static __always_inline void sack_take_out(struct option_edit *e)
{
	__u32 size = 2 + e->blocks * 8;

	for (__u32 i = 0; i < TCP_OPTIONS; i++) {
		if (i >= size)
			break;
		e->is[(e->sack - 2 + i) & OPTION_PLACE] = OPTION_NOP;
	}
}

/* Selective acknowledgements are of the other end's stream, which is numbered otherwise there. */
static __always_inline void sack_shift(struct option_edit *e, const struct xlvs_conn *conn,
				       const struct segment *s, bool reply)
{
	__u32 last = 0;
	bool empty = false;

	for (__u32 i = 0; i < SACK_EDGES; i++) {
		__be32 *edge = (void *)(e->is + ((e->sack + i * 4) & OPTION_PLACE));

		if (!e->sack || i >= e->blocks * 2)
			break;
		*edge = bpf_htonl(sack_edge(conn, s, bpf_ntohl(*edge), reply));
		empty |= i & 1 && *edge == last;
		last = *edge;
	}
	if (empty && s->flags & XLVS_CONN_OPENING)
		sack_take_out(e);
}

/* The timestamps that SYNPROXY gave in the real server's name (stamps.h): whether there are any. */
static __always_inline bool stamps_told(struct option_edit *e, const struct xlvs_conn *conn,
					const struct packet *p, const struct segment *s, bool reply)
{
	if (!e->stamps || !(s->flags & XLVS_CONN_STAMPED))
		return false;
	stamps_shift(e, p, reply, stamps_of(conn)->shift);
	return true;
}

/* The longest packet on the way to the destination, as it was found last; 0: not yet. */
static __always_inline __u32 mtu_to(const struct xlvs_dest *dest)
{
	return READ_ONCE(dest->hop.seq) ? dest->hop.mtu : 0;
}

static __always_inline __u16 mss_of(const struct xlvs_dest *dest)
{
	__u32 mtu = mtu_to(dest), headers = dest->family == XLVS_IPV4 ? HEADERS4 : HEADERS6;

	return mtu > headers ? mtu - headers : 0;
}

/* Whether the segment may grow by so much. What is not cut yet (GSO) grows nowhere. */
static __always_inline bool has_room(struct xdp_md *ctx, const struct packet *p,
				     const struct xlvs_conn *conn, const struct xlvs_dest *dest,
				     __u32 size)
{
	__u32 ingress = ctx->ingress_ifindex, mtu = mtu_to(dest);
	struct xlvs_port *port = bpf_map_lookup_elem(&ports, &ingress);

	if (port && port->flags & XLVS_PORT_GENERIC && p->length > port->mtu)
		return false;
	return conn->flags & XLVS_CONN_LOCAL || !mtu || p->length + size <= mtu;
}

static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* In a TCP option of each segment. */
static __always_inline enum xlvs_outcome
tell_by_option(struct xdp_md *ctx, struct packet *p, struct xlvs_conn *conn,
	       const struct segment *s, const struct xlvs_dest *dest, struct xlvs_scratch *notes)
{
	if (p->tcp & (TCP_SYN | TCP_RST))
		return XLVS_FORWARDED;
	if (!s->whole || !has_room(ctx, p, conn, dest, toa_size(conn))) {
		count(XLVS_TOA_LEFT_OUT);
		return XLVS_FORWARDED;
	}
	__builtin_memcpy(notes->edit.was, notes->edit.is, sizeof(notes->edit.was));
	return toa_insert(ctx, p, conn, notes) ? XLVS_FORWARDED : XLVS_DROP_MALFORMED;
}

/*
 * In front of the payload. What is numbered before that (a SYN, a probe) comes before the
 * header, too. A reset comes behind it: the server most likely has it, or else asks again.
 */
static __always_inline enum xlvs_outcome
tell_by_header(struct xdp_md *ctx, struct packet *p, struct xlvs_conn *conn,
	       const struct segment *s, const struct xlvs_dest *dest, struct xlvs_scratch *notes)
{
	__u32 size = proxy_size(s->flags, conn->family), at = options_at(p) + s->options;
	__u32 ahead = s->sequence - s->first;

	if (ahead > 1 || p->tcp & TCP_RST)
		return XLVS_FORWARDED;
	if (!tcp_store(ctx, p, l4_of(p) + 4, s->sequence - size))
		return XLVS_DROP_MALFORMED;
	if (!ahead && (!s->payload || !is_syn(p)))
		return XLVS_FORWARDED;
	if (!s->whole) /* sent again, it comes behind a header that has arrived */
		return XLVS_DROP_FRAGMENT;
	if (!ahead)
		return proxy_empty_syn(ctx, p, at);
	__builtin_memset(notes->edit.made, 0, sizeof(notes->edit.made));
	proxy_write(notes->edit.made, conn);
	if (!has_room(ctx, p, conn, dest, size))
		return proxy_alone(ctx, p, at, size, notes);
	return proxy_insert(ctx, p, at, size, notes) ? XLVS_FORWARDED : XLVS_DROP_MALFORMED;
}

/* A client's segment. */
static __always_inline enum xlvs_outcome opening_request(struct xdp_md *ctx, struct packet *p,
							 struct xlvs_conn *conn, struct segment *s,
							 const struct xlvs_dest *dest,
							 struct xlvs_scratch *notes)
{
	struct option_edit *e = &notes->edit;
	bool changed;

	e->strip = true;
	if (s->flags & XLVS_CONN_OPENING && is_syn(p)) {
		e->no_timestamps = has_local(s->flags);
		e->no_fast_open =
			true; /* its data would come before anybody is told of the client */
		e->no_sack = s->flags & XLVS_CONN_PROXY && s->flags & XLVS_CONN_LOCAL;
		conn->edge_in = s->first = s->sequence;
	}
	changed = s->options && options_edit();
	if (s->options && (conn->seq_out | conn->seq_before)) {
		sack_shift(e, conn, s, false);
		changed = true;
	}
	changed |= stamps_told(e, conn, p, s, false);
	if (changed && !options_store(ctx, p, e, s->whole))
		return XLVS_DROP_MALFORMED;
	if (!(s->flags & XLVS_CONN_OPENING))
		return XLVS_FORWARDED;
	if (s->flags & XLVS_CONN_TOA)
		return tell_by_option(ctx, p, conn, s, dest, notes);
	if (s->flags & XLVS_CONN_PROXY)
		return tell_by_header(ctx, p, conn, s, dest, notes);
	return XLVS_FORWARDED;
}

/* A server's segment of a connection that is being opened. */
static __always_inline bool hear_server(struct xdp_md *ctx, const struct packet *p,
					struct xlvs_conn *conn, const struct segment *s,
					const struct xlvs_dest *dest, struct option_edit *e)
{
	__u32 size = proxy_size(s->flags, conn->family);

	if (p->tcp & TCP_SYN) {
		e->no_timestamps = has_local(s->flags);
		e->no_fast_open = true;
		e->mss_most = mss_of(dest);
		e->mss_less = s->flags & XLVS_CONN_TOA ? toa_size(conn) : size;
		conn->edge_out = s->sequence;
	}
	if (is_opened(conn, p, s))
		opened(conn);
	return !acknowledges_header(conn, p, s) ||
	       tcp_store(ctx, p, l4_of(p) + 8, header_place(conn, s) + size);
}

/* A server's segment. */
static __always_inline enum xlvs_outcome opening_reply(struct xdp_md *ctx, struct packet *p,
						       struct xlvs_conn *conn, struct segment *s,
						       const struct xlvs_dest *dest,
						       struct option_edit *e)
{
	bool changed;

	if (s->flags & XLVS_CONN_OPENING && !hear_server(ctx, p, conn, s, dest, e))
		return XLVS_DROP_MALFORMED;
	changed = s->options && options_edit();
	if (s->options && conn->seq_in) {
		sack_shift(e, conn, s, true);
		changed = true;
	}
	changed |= stamps_told(e, conn, p, s, true);
	return !changed || options_store(ctx, p, e, s->whole) ? XLVS_FORWARDED
							      : XLVS_DROP_MALFORMED;
}

/*
 * In a first fragment there must be the whole header: its options would come through in the
 * second one (RFC 1858). Any other impossible header is left to the server as it is.
 */
static __always_inline enum xlvs_outcome opening_segment(struct xdp_md *ctx,
							 const struct flow *flow,
							 struct xlvs_scratch *notes,
							 const struct xlvs_settings *set)
{
	struct packet *p = &notes->packet;
	struct xlvs_conn *conn = flow->conn;
	__u32 row = conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);
	struct segment s = { .whole = notes->relayed.kind == RELAY_WHOLE };

	if (!dest)
		return XLVS_FORWARDED; /* it goes no further */
	if (p->protocol == IPPROTO_UDP)
		return uoa_datagram(ctx, flow, notes);
	if (!segment_read(ctx, p, &s))
		return s.whole ? XLVS_FORWARDED : XLVS_DROP_FRAGMENT;
	if (is_syn(p) && !is_reply(flow))
		reopen(conn, s.sequence, notes->relayed.noted, set);
	opening_of(conn, &s);
	if (!options_load(ctx, p, s.options, &notes->edit))
		return XLVS_DROP_MALFORMED;
	notes->edit.toa_kind = set->sysctl.toa_kind;
	if (is_reply(flow))
		return opening_reply(ctx, p, conn, &s, dest, &notes->edit);
	return opening_request(ctx, p, conn, &s, dest, notes);
}

/* The opening program: packet and connection stand in the CPU's scratch. */
static __always_inline int handle_opening(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	struct xlvs_scratch *notes = scratch_get();
	enum xlvs_outcome outcome = XLVS_FORWARDED;
	struct flow flow;
	__u32 here;

	if (!notes)
		return XDP_PASS;
	if (!relayed_flow(notes, &flow))
		return drop_as(XLVS_DROP_RACE);
	here = is_reply(&flow) ? XLVS_CONN_OWN : XLVS_CONN_LOCAL;
	/* Else it goes to its end: the error quotes it as it came. */
	if (notes->packet.ttl > 1 || flow.conn->flags & here)
		outcome = opening_segment(ctx, &flow, notes, set);
	if (flow.conn->flags & XLVS_CONN_SYNPROXY && !rescale_window(ctx, &notes->packet, &flow))
		outcome = XLVS_DROP_MALFORMED;
	if (!flow_holds(&flow))
		outcome = XLVS_DROP_RACE;
	if (outcome != XLVS_FORWARDED)
		return drop_as(outcome);
	bpf_tail_call(ctx, &programs,
		      flow.conn->flags & XLVS_CONN_WATCHED ? XLVS_PROG_FTP : XLVS_PROG_RELAY);
	return drop_as(XLVS_DROP_RACE);
}

#endif
