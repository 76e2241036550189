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
#include "relay.h"
#include "relay_on.h"
#include "toa.h"

/* MSS is what a packet's headers without options leave (RFC 6691). */
#define HEADERS4 40
#define HEADERS6 60

struct segment {
	__u32 sequence;
	__u32 acknowledged;
	__u32 options; /* bytes of them, and ... */
	__u32 payload;
};

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

/* Selective acknowledgements of the server's stream, as the server knows its places. */
static __always_inline void sack_inward(struct option_edit *e, const struct xlvs_conn *conn)
{
	for (__u32 i = 0; i < SACK_EDGES; i++) {
		__be32 *edge = (void *)(e->is + ((e->sack + i * 4) & OPTION_PLACE));

		if (!e->sack || i >= e->blocks * 2)
			break;
		*edge = bpf_htonl(ftp_unshift(conn, bpf_ntohl(*edge)));
	}
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

/* Tell the server who the client is. */
static __always_inline enum xlvs_outcome tell_server(struct xdp_md *ctx, struct packet *p,
						     struct xlvs_conn *conn,
						     const struct xlvs_dest *dest,
						     struct xlvs_scratch *notes, bool whole)
{
	if (!whole || !has_room(ctx, p, conn, dest, toa_size(conn))) {
		count(XLVS_TOA_LEFT_OUT);
		return XLVS_FORWARDED;
	}
	return toa_insert(ctx, p, conn, notes) ? XLVS_FORWARDED : XLVS_DROP_MALFORMED;
}

/* A client's segment. */
static __always_inline enum xlvs_outcome opening_request(struct xdp_md *ctx, struct packet *p,
							 struct xlvs_conn *conn, struct segment *s,
							 struct xlvs_scratch *notes,
							 const struct xlvs_settings *set)
{
	__u32 row = conn->dest, flags;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);
	bool whole = notes->relayed.kind == RELAY_WHOLE, opening;
	struct option_edit *e = &notes->edit;
	bool changed;

	if (is_syn(p))
		rebase(conn, s->sequence, set);
	flags = READ_ONCE(conn->flags);
	opening = flags & XLVS_CONN_OPENING;
	if (!dest)
		return XLVS_FORWARDED; /* it goes no further */
	if (!options_load(ctx, p, s->options, e))
		return XLVS_DROP_MALFORMED;
	e->strip = true;
	e->toa_kind = set->sysctl.toa_kind;
	if (opening && is_syn(p)) {
		e->no_timestamps = (flags & XLVS_CONN_METHOD) == XLVS_FULLNAT;
		e->no_fast_open =
			true; /* its data would be there before anybody is told of the client */
		conn->edge_in = s->sequence;
	}
	changed = s->options && options_edit();
	if (conn->seq_out | conn->seq_before) {
		sack_inward(e, conn);
		changed = s->options;
	}
	if (changed && !options_store(ctx, p, e, whole))
		return XLVS_DROP_MALFORMED;
	if (!opening || p->tcp & (TCP_SYN | TCP_RST) || !(flags & XLVS_CONN_TOA))
		return XLVS_FORWARDED;
	__builtin_memcpy(e->was, e->is, sizeof(e->was));
	return tell_server(ctx, p, conn, dest, notes, whole);
}

/* The server has said what it says to nobody who has not opened the connection. */
static __always_inline bool is_opened(const struct xlvs_conn *conn, const struct packet *p,
				      const struct segment *s)
{
	__s32 ahead = s->acknowledged - (conn->edge_in + conn->seq_in + 1);

	return !(p->tcp & (TCP_SYN | TCP_RST)) && (s->payload || p->tcp & TCP_FIN || ahead > 0);
}

/* From now on the edges are what was acknowledged last: by the client, the server's SYN. */
static __always_inline void opened(struct xlvs_conn *conn)
{
	__u32 first = conn->edge_out;

	__sync_fetch_and_and(&conn->flags, ~XLVS_CONN_OPENING);
	conn->edge_in = first + conn->seq_out + 1;
}

/* A server's segment. */
static __always_inline enum xlvs_outcome opening_reply(struct xdp_md *ctx, struct packet *p,
						       struct xlvs_conn *conn, struct segment *s,
						       struct xlvs_scratch *notes)
{
	__u32 flags = READ_ONCE(conn->flags), row = conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);
	struct option_edit *e = &notes->edit;

	if (!dest)
		return XLVS_FORWARDED;
	if (!options_load(ctx, p, s->options, e))
		return XLVS_DROP_MALFORMED;
	if (flags & XLVS_CONN_OPENING && p->tcp & TCP_SYN) {
		e->no_timestamps = (flags & XLVS_CONN_METHOD) == XLVS_FULLNAT;
		e->no_fast_open = true;
		e->mss_most = mss_of(dest);
		e->mss_less = flags & XLVS_CONN_TOA ? toa_size(conn) : 0;
		conn->edge_out = s->sequence;
	} else if (flags & XLVS_CONN_OPENING && is_opened(conn, p, s)) {
		opened(conn);
	}
	if (s->options && options_edit() &&
	    !options_store(ctx, p, e, notes->relayed.kind == RELAY_WHOLE))
		return XLVS_DROP_MALFORMED;
	return XLVS_FORWARDED;
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
	struct segment s;

	if (!segment_read(ctx, p, &s))
		return notes->relayed.kind == RELAY_FIRST ? XLVS_DROP_FRAGMENT : XLVS_FORWARDED;
	if (is_reply(flow))
		return opening_reply(ctx, p, flow->conn, &s, notes);
	return opening_request(ctx, p, flow->conn, &s, notes, set);
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
	flow.ref = notes->relayed.ref;
	flow.generation = notes->relayed.generation;
	flow.conn = conn_at(flow.ref & XLVS_REF_SLOT);
	if (!flow.conn)
		return drop_as(XLVS_DROP_RACE);
	here = is_reply(&flow) ? XLVS_CONN_OWN : XLVS_CONN_LOCAL;
	/* Else it goes to its end: the error quotes it as it came. */
	if (notes->packet.ttl > 1 || flow.conn->flags & here)
		outcome = opening_segment(ctx, &flow, notes, set);
	if (!flow_holds(&flow))
		outcome = XLVS_DROP_RACE;
	if (outcome != XLVS_FORWARDED)
		return drop_as(outcome);
	bpf_tail_call(ctx, &programs,
		      flow.conn->flags & XLVS_CONN_WATCHED ? XLVS_PROG_FTP : XLVS_PROG_RELAY);
	return drop_as(XLVS_DROP_RACE);
}

#endif
