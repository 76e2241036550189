/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Connections that SYNPROXY made, until their real server has answered: the SYN is sent,
 * and sent again; the SYN-ACK says by how much the server's numbers differ from what the
 * client was told, and then becomes two packets (the companion's work, answer.h).
 */
#ifndef XLVS_PROXIED_H
#define XLVS_PROXIED_H

#include "event.h"
#include "half_open.h"
#include "options.h"
#include "ready.h"
#include "relay_on.h"
#include "draft.h"
#include "service.h"
#include "stamps.h"
#include "state.h"

#define OFFER_LIFE 140 /* seconds: longer than a cookie's life */

/* What a packet of such a connection needs to be answered. */
struct proxied {
	struct xlvs_conn *conn;
	struct xlvs_dest *dest;
	const struct xlvs_settings *set;
	__u32 sequence;
	__u32 acknowledged;
	bool payload;
};

/* The segment in the scratch, towards the real server, whose family may be another. */
static __always_inline void draft_to(struct xlvs_scratch *notes, const struct xlvs_conn *conn,
				     __u8 flags)
{
	struct draft *s = &notes->draft;
	bool fullnat = (conn->flags & XLVS_CONN_METHOD) == XLVS_FULLNAT;

	copy_address(s->saddr, fullnat ? conn->laddr : conn->caddr);
	s->sport = fullnat ? conn->lport : conn->cport;
	copy_address(s->daddr, conn->daddr);
	s->dport = conn->dport;
	s->flags = flags;
	s->acknowledged = 0;
	s->window = 0;
	s->words = 0;
	notes->packet.family = conn->server_family;
}

/* Write the segment and send it off, by the hop that was found. */
static __always_inline int draft_leave(struct xdp_md *ctx, struct xlvs_scratch *notes,
				       const struct xlvs_hop *hop, const __u8 *target,
				       bool from_source, enum xlvs_outcome outcome)
{
	struct packet *p = &notes->packet;
	enum xlvs_outcome why = needs_companion(hop);

	if (bpf_xdp_load_bytes(ctx, 0, notes->own.dmac, 12) || !draft_write(ctx))
		return drop_as(XLVS_DROP_MALFORMED);
	if (why)
		return hand_ready(ctx, why, &notes->own, l3_of(p), p->family, target, from_source);
	if (!link_to(ctx, hop, l3_of(p), p->family))
		return drop_as(XLVS_DROP_MALFORMED);
	count(outcome);
	return leave_by(ctx, hop);
}

static __always_inline int draft_to_server(struct xdp_md *ctx, struct xlvs_scratch *notes,
					   const struct flow *flow, struct proxied *of)
{
	struct xlvs_dest *dest = of->dest;
	enum xlvs_outcome outcome;
	struct xlvs_hop hop;

	outcome = hop_resolve(ctx, &dest->hop, dest->family, 0, dest->address, of->set, &hop);
	if (!flow_holds(flow))
		outcome = XLVS_DROP_RACE;
	if (outcome)
		return drop_as(outcome);
	return draft_leave(ctx, notes, &hop, dest->address, false, XLVS_FORWARDED);
}

/* The connection is over before it began: the client, which does not know, is reset. */
static __always_inline int reset_client(struct xdp_md *ctx, struct xlvs_scratch *notes,
					const struct flow *flow, struct proxied *of)
{
	struct xlvs_conn *conn = of->conn;
	struct draft *s = &notes->draft;
	enum xlvs_outcome outcome;
	struct xlvs_hop hop;

	copy_address(s->saddr, conn->vaddr);
	copy_address(s->daddr, conn->caddr);
	s->sport = conn->vport;
	s->dport = conn->cport;
	s->flags = TCP_RST | TCP_ACK;
	s->sequence = conn->seq_base + 1;
	s->acknowledged = conn->edge_in + 1;
	s->window = 0;
	s->words = 0;
	if (!flow_holds(flow) || !half_open_over(conn, XLVS_TCP_CLOSE, of->set))
		return drop_as(XLVS_DROP_RACE);
	notes->packet.family = conn->family;
	outcome = hop_resolve(ctx, &conn->back, conn->family, s->saddr, s->daddr, of->set, &hop);
	if (outcome)
		return drop_as(outcome);
	return draft_leave(ctx, notes, &hop, s->daddr, true, XLVS_SERVER_REFUSED);
}

/* Whether it is time for another SYN (half_open_due); whoever gets true must send it. */
static __always_inline bool claim_syn(struct xlvs_conn *conn, const struct xlvs_settings *set)
{
	__u32 word = READ_ONCE(conn->ftp), sent = word & 0xff, time = now();

	if (sent > (__u32)set->sysctl.synproxy_retries)
		return false;
	/* The client's own packets may hasten it, but not to more than one a second. */
	if (sent && time - READ_ONCE(conn->seen) < set->hz)
		return false;
	if (__sync_val_compare_and_swap(&conn->ftp, word, word + 1) != word)
		return false;
	WRITE_ONCE(conn->seen, time);
	return true;
}

static __always_inline int ask_server(struct xdp_md *ctx, struct xlvs_scratch *notes,
				      const struct flow *flow, struct proxied *of)
{
	struct xlvs_conn *conn = of->conn;
	struct draft *s = &notes->draft;
	__u32 offer = conn->older, scale = offer >> 16 & 15;
	__u32 window = conn->ftp >> 16;

	draft_to(notes, conn, TCP_SYN);
	s->sequence = conn->edge_in + syn_shift(conn);
	if (scale != XLVS_NO_SCALE)
		window <<= scale;
	s->window = window > 0xffff ? 0xffff : window; /* a SYN's is never scaled */
	draft_offer(s, offer, scale, stamps_of(conn)->client, 0);
	return draft_to_server(ctx, notes, flow, of);
}

/* The client has given up: the real server shall, too. */
static __always_inline int pass_reset_on(struct xdp_md *ctx, struct xlvs_scratch *notes,
					 const struct flow *flow, struct proxied *of)
{
	struct xlvs_conn *conn = of->conn;
	__u32 next = conn->edge_in + 1;

	if (of->sequence != next)
		return drop_as(XLVS_DROP_UNANSWERED);
	draft_to(notes, conn, TCP_RST);
	notes->draft.sequence = next + syn_shift(conn);
	if (!half_open_over(conn, XLVS_TCP_CLOSE, of->set))
		return drop_as(XLVS_DROP_RACE);
	return draft_to_server(ctx, notes, flow, of);
}

/* A packet of the client's while its real server is silent. */
static __always_inline int client_waits(struct xdp_md *ctx, struct xlvs_scratch *notes,
					const struct flow *flow, struct proxied *of)
{
	enum xlvs_outcome outcome = XLVS_DROP_UNANSWERED;
	const struct xlvs_settings *set = of->set;
	struct packet *p = &notes->packet;
	struct xlvs_conn *conn = of->conn;

	if (p->tcp & TCP_RST)
		return pass_reset_on(ctx, notes, flow, of);
	if (p->tcp & TCP_SYN) {
		if (of->sequence == conn->edge_in)
			return drop_as(XLVS_DROP_UNANSWERED);
		conn_end(conn, flow->ref & XLVS_REF_SLOT); /* it begins anew */
		bpf_tail_call(ctx, &programs, XLVS_PROG_KNOWN);
		return drop_as(XLVS_DROP_RACE);
	}
	account(of->dest, conn->dest, false, p->length);
	if (of->payload && set->sysctl.synproxy_defer &&
	    event_send(ctx, XLVS_EVENT_HELD, flow, 0, set))
		outcome = XLVS_HANDED_PAYLOAD;
	if (claim_syn(conn, set))
		return ask_server(ctx, notes, flow, of);
	if (half_open_spent(conn, set))
		return reset_client(ctx, notes, flow, of);
	return drop_as(outcome);
}

/* Note what the service's servers offer: the next clients are told the same. */
static __always_inline void learn_offer(struct proxied *of, __u32 offer)
{
	__u32 row = of->dest->service, agreed = of->conn->older, time = now(), said, learned;
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &row);

	if (!service)
		return;
	said = READ_ONCE(service->server_offer);
	learned = (said & ~0xffffu) | (offer & 0xffff);
	/* What the client did not ask for, the server did not answer. */
	if ((agreed >> 16 & 15) != XLVS_NO_SCALE) {
		learned &= ~0x1f0000u;
		if ((offer >> 16 & 15) != XLVS_NO_SCALE)
			learned |= ((offer >> 16 & 15) + 1) << 16;
	} else if (!said) {
		learned |= (DEFAULT_SCALE + 1) << 16;
	}
	if (agreed & XLVS_OFFER_SACK)
		learned = (learned & ~XLVS_OFFER_NO_SACK) |
			  (offer & XLVS_OFFER_SACK ? 0 : XLVS_OFFER_NO_SACK);
	if (agreed & XLVS_OFFER_STAMPS && !(offer & XLVS_OFFER_STAMPS)) {
		learned |= XLVS_OFFER_NO_STAMPS;
		if (said) /* no cookie says which of two offers that was in */
			said = __sync_fetch_and_or(&service->server_offer, XLVS_OFFER_NO_STAMPS) |
			       XLVS_OFFER_NO_STAMPS;
	}
	if (learned == said)
		return;
	/* Two offers are known at once; those who were told an older one must be gone. */
	if (said && time - service->offer_changed < OFFER_LIFE * of->set->hz)
		return;
	WRITE_ONCE(service->offer_changed, time);
	learned &= ~(15u << XLVS_OFFER_BEFORE);
	learned |= known_scale(said) << XLVS_OFFER_BEFORE;
	WRITE_ONCE(service->server_offer, learned ^ XLVS_OFFER_TURN);
}

/*
 * What the server's windows and the client's must be shifted by, where the director told
 * them otherwise: the special program does it (window.h).
 */
static __always_inline __u32 note_scales(struct xlvs_conn *conn, __u32 offer)
{
	__u32 client = conn->older >> 16 & 15, told = conn->older >> 24 & 15;
	__u32 server = offer >> 16 & 15;
	bool unscaled = server == XLVS_NO_SCALE;

	if (client == XLVS_NO_SCALE)
		return 0;
	conn->window_shift = (unscaled ? 0 : (__s32)server) - (__s32)told;
	if (unscaled && client)
		conn->older |= XLVS_SERVER_UNSCALED;
	return conn->window_shift || (unscaled && client) ? XLVS_CONN_SPECIAL : 0;
}

/* What its timestamps must be shifted by, where both have any. */
static __always_inline __u32 note_stamps(struct xlvs_conn *conn, __u32 offer, __u32 stamp)
{
	struct stamps *s = stamps_of(conn);

	if (!(conn->older & offer & XLVS_OFFER_STAMPS))
		return 0;
	s->shift = s->told - stamp;
	return XLVS_CONN_STAMPED;
}

/* The real server has answered: the connection is open on both sides, shifted by a constant. */
static __always_inline int server_answers(struct xdp_md *ctx, struct xlvs_scratch *notes,
					  const struct flow *flow, struct proxied *of)
{
	__u32 offer = offer_of(ctx, &notes->packet, notes), rare;
	struct xlvs_conn *conn = of->conn;

	if (!flow_holds(flow))
		return drop_as(XLVS_DROP_RACE);
	rare = note_scales(conn, offer) | note_stamps(conn, offer, notes->offered.stamp);
	conn->edge_out = of->sequence;
	conn->seq_out = conn->seq_base - of->sequence;
	conn->seq_before = conn->seq_out;
	barrier();
	if (rare)
		__sync_fetch_and_or(&conn->flags, rare);
	if (half_open_over(conn, XLVS_TCP_ESTABLISHED, of->set)) {
		learn_offer(of, offer);
		if (of->set->sysctl.synproxy_defer)
			event_send(ctx, XLVS_EVENT_ANSWERED, flow, 0, of->set);
	}
	return hand_over_as(ctx, XLVS_HANDED_ANSWER, XLVS_ANSWER_MAGIC);
}

/*
 * An ACK of something else, as a server gives that still has an old connection between
 * these ends: it is told, as the client would, and the next SYN finds it gone (RFC 9293, 3.10.7.3).
 */
static __always_inline int reset_old(struct xdp_md *ctx, struct xlvs_scratch *notes,
				     const struct flow *flow, struct proxied *of)
{
	draft_to(notes, of->conn, TCP_RST);
	notes->draft.sequence = of->acknowledged;
	return draft_to_server(ctx, notes, flow, of);
}

/* A packet of the real server's while it is waited for. */
static __always_inline int server_speaks(struct xdp_md *ctx, struct xlvs_scratch *notes,
					 const struct flow *flow, struct proxied *of)
{
	struct packet *p = &notes->packet;
	struct xlvs_conn *conn = of->conn;
	bool expected = of->acknowledged == conn->edge_in + syn_shift(conn) + 1;

	account(of->dest, conn->dest, true, p->length);
	if (!(p->tcp & TCP_ACK))
		return drop_as(XLVS_DROP_UNANSWERED);
	if (p->tcp & TCP_RST)
		return expected ? reset_client(ctx, notes, flow, of)
				: drop_as(XLVS_DROP_UNANSWERED);
	if (!expected)
		return reset_old(ctx, notes, flow, of);
	if (!(p->tcp & TCP_SYN) || of->payload)
		return drop_as(XLVS_DROP_UNANSWERED);
	return server_answers(ctx, notes, flow, of);
}

static __always_inline int handle_proxied(struct xdp_md *ctx, struct xlvs_scratch *notes,
					  const struct xlvs_settings *set)
{
	struct packet *p = &notes->packet;
	struct proxied of = { .set = set };
	struct tcphdr *tcp;
	struct flow flow;
	__u32 row;

	__builtin_memset(p, 0, sizeof(*p));
	if (parse_xdp(ctx, p) != PARSED_FLOW || !conn_find(p, &flow))
		return drop_as(XLVS_DROP_RACE);
	tcp = data_of(ctx) + l4_of(p);
	if ((void *)(tcp + 1) > end_of(ctx) || p->protocol != IPPROTO_TCP)
		return drop_as(XLVS_DROP_MALFORMED);
	of.conn = flow.conn;
	row = flow.conn->dest;
	of.dest = bpf_map_lookup_elem(&dests, &row);
	if (!is_half_open(flow.conn)) {
		if (flow.conn->flags & XLVS_CONN_OPENING)
			return opening_on(ctx, p, &flow, false);
		bpf_tail_call(ctx, &programs, XLVS_PROG_KNOWN);
		return drop_as(XLVS_DROP_RACE);
	}
	of.sequence = bpf_ntohl(tcp->seq);
	of.acknowledged = bpf_ntohl(tcp->ack_seq);
	of.payload = l4_length(p) > tcp->doff * 4 || p->tcp & TCP_FIN;
	if (!of.dest || !(of.dest->flags & XLVS_DEST_AVAILABLE))
		return of.dest ? reset_client(ctx, notes, &flow, &of)
			       : drop_as(XLVS_DROP_DESTINATION_GONE);
	return is_reply(&flow) ? server_speaks(ctx, notes, &flow, &of)
			       : client_waits(ctx, notes, &flow, &of);
}

#endif
