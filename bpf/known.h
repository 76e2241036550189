/* SPDX-License-Identifier: GPL-2.0-only */
/* A packet of a known connection: count it, move the state, forward it. */
#ifndef XLVS_KNOWN_H
#define XLVS_KNOWN_H

#include "emit.h"
#include "ends.h"
#include "error.h"
#include "forward/dr.h"
#include "forward/nat.h"
#include "forward/tun.h"
#include "half_open.h"
#include "related.h"
#include "relay_on.h"
#include "sctp.h"
#include "service.h"
#include "stamps.h"
#include "tcp.h"
#include "tcp_options.h"
#include "transport.h"
#include "tunnel.h"

/*
 * A packet over the next hop's MTU. In generic mode it may be a train of segments that
 * the sender has not cut yet (nothing that long comes by wire): the companion knows how
 * long they are. Else the sender must learn.
 */
static __always_inline int too_big(struct xdp_md *ctx, const struct packet *p, const __u8 *source,
				   __u32 dest, const struct flow *flow, __u32 mtu)
{
	struct xlvs_scratch *notes = scratch_get();
	__u32 ingress = ctx->ingress_ifindex;
	struct xlvs_port *port = bpf_map_lookup_elem(&ports, &ingress);

	if (port && port->flags & XLVS_PORT_GENERIC && p->length > port->mtu)
		return hand_over(ctx, XLVS_HANDED_SEGMENTS);
	/* It is told of as it came, or comes again in parts. */
	if (flow->conn->flags & XLVS_CONN_STAMPED)
		stamps_shift_plain(ctx, p, is_reply(flow), -stamps_of(flow->conn)->shift);
	/* As in the kernel, where the TTL goes down before sizes are compared. */
	if (!notes || !decrement_ttl((void *)(long)ctx->data, (void *)(long)ctx->data_end, p))
		return drop_as(XLVS_DROP_MALFORMED);
	notes->counted_dest = flow->conn->dest;
	notes->counted_reply = is_reply(flow);
	return refuse(ctx, p, source, dest, XLVS_DROP_TOO_BIG, mtu);
}

/* A connection for one packet has a timeout of 0, and keeps it. */
static __always_inline void udp_step(struct xlvs_conn *conn, bool reply,
				     const struct xlvs_settings *set)
{
	if (conn->timeout && conn->timeout != set->udp_timeout)
		conn->timeout = set->udp_timeout;
	if (reply && unlikely(conn->template_phase))
		template_assure(conn);
}

static __always_inline void note_packet(struct xlvs_conn *conn, bool reply,
					const struct xlvs_settings *set)
{
	__u32 time = now();

	if ((__s32)(time - conn->seen) >= (__s32)(set->hz / 4))
		conn->seen = time;
	if (!reply)
		conn->in_packets++;
}

/* Note the packet on its connection: when, which state, how many. */
static __always_inline void touch(struct xlvs_conn *conn, const struct packet *p, bool reply,
				  const struct xlvs_settings *set)
{
	note_packet(conn, reply, set);
	if (p->protocol == IPPROTO_TCP)
		tcp_step(conn, p, reply, set);
	else
		udp_step(conn, reply, set);
}

/* The same for any transport; AH and ESP change no state. */
static __always_inline void touch_any(struct xlvs_conn *conn, const struct packet *p, bool reply,
				      const struct xlvs_settings *set)
{
	if (is_half_open(conn))
		return;
	if (is_plain(p->protocol)) {
		touch(conn, p, reply, set);
		return;
	}
	note_packet(conn, reply, set);
	if (p->protocol == IPPROTO_SCTP)
		sctp_step(conn, p, reply, set);
}

/* From the real server back to the client. */
static __always_inline int forward_reply(struct xdp_md *ctx, const struct packet *p,
					 const struct flow *flow, const struct xlvs_settings *set,
					 bool special)
{
	struct xlvs_conn *conn = flow->conn;
	struct translation t = {};
	enum xlvs_outcome outcome;
	struct xlvs_hop hop;

	if (conn->flags & XLVS_CONN_OWN)
		return hand_over(ctx, XLVS_HANDED_OWN);
	if (unlikely(p->ttl <= 1))
		return refuse(ctx, p, refuser(p, conn), NOBODY, XLVS_DROP_TTL, 0);
	ends_outside(p, conn, &t);
	outcome = hop_resolve(ctx, &conn->back, p->family, t.saddr, t.daddr, set, &hop);
	if (unlikely(!flow_holds(flow)))
		outcome = XLVS_DROP_RACE;
	if (unlikely(outcome))
		return drop_as(outcome);
	outcome = needs_companion(&hop);
	if (unlikely(outcome))
		return hand_over(ctx, outcome);
	if (unlikely(p->length > hop.mtu))
		return too_big(ctx, p, refuser(p, conn), NOBODY, flow, hop.mtu);
	if (!(special ? translate_any(ctx, p, &t, 1) : translate(ctx, p, &t, 1)))
		return drop_as(XLVS_DROP_MALFORMED);
	return emit(ctx, &hop, p->l3, p->family);
}

/* To a real server that is the director itself: the stack takes it from here. */
static __always_inline int deliver(struct xdp_md *ctx, const struct packet *p, bool masq,
				   const struct translation *t, bool special)
{
	if (masq && !(special ? translate_any(ctx, p, t, 0) : translate(ctx, p, t, 0)))
		return drop_as(XLVS_DROP_MALFORMED);
	return pass_as(XLVS_LOCAL);
}

/* Off to the hop that was found, by the connection's method. */
static __always_inline int send_request(struct xdp_md *ctx, const struct packet *p, __u32 method,
					const struct xlvs_dest *dest, const struct translation *t,
					const struct xlvs_hop *hop, const struct shim *shim,
					bool special)
{
	__u32 link = sizeof(struct ethhdr) + hop_tags(hop) * VLAN_TAG;

	if (is_translated(method)) {
		if (!(special ? translate_any(ctx, p, t, 1) : translate(ctx, p, t, 1)))
			return drop_as(XLVS_DROP_MALFORMED);
		return emit(ctx, hop, p->l3, p->family);
	}
	if (special && shim->size)
		return tunnel(ctx, p, dest, shim, link) ? emit(ctx, hop, link, dest->family)
							: drop_as(XLVS_DROP_MALFORMED);
	if (!(special ? pass_on_any(ctx, p) : pass_on(ctx, p)))
		return drop_as(XLVS_DROP_MALFORMED);
	if (method == XLVS_ROUTE)
		return emit(ctx, hop, p->l3, p->family);
	if (!encapsulate(ctx, p, dest, link))
		return drop_as(XLVS_DROP_MALFORMED);
	return emit(ctx, hop, link, dest->family);
}

/* From the client to the real server. */
static __always_inline int forward_request(struct xdp_md *ctx, const struct packet *p,
					   const struct flow *flow, struct xlvs_dest *dest,
					   const struct xlvs_settings *set, bool special)
{
	struct xlvs_conn *conn = flow->conn;
	__u32 flags = conn->flags, method = flags & XLVS_CONN_METHOD, overhead = 0;
	struct translation t = {};
	/* IPVS knows its own errors as answers by their quotation, which NAT's do not match. */
	__u32 counted = is_translated(method) ? NOBODY : conn->dest;
	enum xlvs_outcome outcome = XLVS_FORWARDED;
	struct shim shim = {};
	struct xlvs_hop hop;

	if (is_translated(method)) {
		if (!special &&
		    unlikely(has_odd_options(ctx, p) ||
			     (p->tcp & TCP_SYN && flags & XLVS_CONN_TOA))) /* it tells anew */
			return opening_on(ctx, p, flow, true);
		ends_inside(p, conn, &t);
	}
	if (unlikely(p->ttl <= 1 && !(flags & XLVS_CONN_LOCAL)))
		return refuse(ctx, p, p->daddr, counted, XLVS_DROP_TTL, 0);
	if (likely(!(flags & XLVS_CONN_LOCAL)))
		outcome = hop_resolve(ctx, &dest->hop, dest->family, 0, dest->address, set, &hop);
	if (unlikely(!flow_holds(flow)))
		outcome = XLVS_DROP_RACE;
	if (unlikely(outcome))
		return drop_as(outcome);
	if (unlikely(flags & XLVS_CONN_LOCAL))
		return deliver(ctx, p, is_translated(method), &t, special);
	outcome = needs_companion(&hop);
	if (unlikely(outcome))
		return hand_over(ctx, outcome);
	if (special && method == XLVS_TUNNEL)
		shim_of(p, conn, dest, set, true, is_partial(ctx, p), &shim);
	if (method == XLVS_TUNNEL)
		overhead = tunnel_header(dest) + shim.size;
	if (unlikely(p->length + overhead > hop.mtu))
		return too_big(ctx, p, p->daddr, counted, flow, hop.mtu - overhead);
	return send_request(ctx, p, method, dest, &t, &hop, &shim, special);
}

/* Nobody serves this client: routing takes its packets where they wanted to go. */
static __always_inline int bypass(const struct packet *p, const struct flow *flow,
				  const struct xlvs_settings *set)
{
	touch_any(flow->conn, p, false, set);
	return pass_as(XLVS_BYPASSED);
}

/* The packet's destination was deleted: with expire_nodest_conn the client gets another. */
static __always_inline int destination_gone(struct xdp_md *ctx, const struct flow *flow,
					    const struct xlvs_settings *set)
{
	if (likely(!set->sysctl.expire_nodest_conn))
		return drop_as(XLVS_DROP_DESTINATION_GONE);
	conn_end(flow->conn, flow->ref & XLVS_REF_SLOT);
	bpf_tail_call(ctx, &programs, XLVS_PROG_KNOWN);
	return drop_as(XLVS_DROP_RACE);
}

/* Connections whose packets may be another program's; the fast path asks once. */
#define CONN_RARE (XLVS_CONN_SPECIAL | XLVS_CONN_OPENING | XLVS_CONN_SHIFTED)

/*
 * Whether the opening program is to see the packet first: all while a connection is opened;
 * where numbers are shifted, what begins one anew, and options that may hold numbers. Nearly
 * all hold none, or just the timestamps that are shifted here.
 */
static __always_inline bool is_opening(struct xdp_md *ctx, const struct packet *p,
				       struct xlvs_conn *conn, bool reply)
{
	__u32 flags = conn->flags;

	if (flags & XLVS_CONN_OPENING)
		return true;
	if (!(flags & XLVS_CONN_SHIFTED))
		return false;
	if (p->tcp & TCP_SYN)
		return true;
	if (note_edge(ctx, p, conn, reply))
		return false;
	return !stamps_shift_plain(ctx, p, reply,
				   flags & XLVS_CONN_STAMPED ? stamps_of(conn)->shift : 0);
}

/* To that program, or to SYNPROXY's while that waits for the real server. */
static __always_inline int open_on(struct xdp_md *ctx, const struct packet *p,
				   const struct flow *flow)
{
	if (!is_half_open(flow->conn))
		return opening_on(ctx, p, flow, false);
	bpf_tail_call(ctx, &programs, XLVS_PROG_PROXIED);
	return drop_as(XLVS_DROP_RACE);
}

/*
 * special: compiled for the special program, which carries what is rare; the fast
 * path leaves such connections to it.
 */
static __always_inline int handle_known(struct xdp_md *ctx, const struct packet *p,
					const struct flow *flow, const struct xlvs_settings *set,
					bool special)
{
	__u32 plain = XLVS_DEST_AVAILABLE | (special ? 0 : XLVS_DEST_SPECIAL);
	__u32 dest_row = flow->conn->dest;
	bool reply = is_reply(flow);
	struct xlvs_dest *dest;

	if (!special && unlikely(flow->conn->flags & CONN_RARE)) {
		if (is_opening(ctx, p, flow->conn, reply))
			return open_on(ctx, p, flow);
		if (flow->conn->flags & XLVS_CONN_SPECIAL) {
			bpf_tail_call(ctx, &programs, XLVS_PROG_SPECIAL);
			return drop_as(XLVS_DROP_RACE);
		}
	}
	dest = bpf_map_lookup_elem(&dests, &dest_row);
	if (!dest)
		return special ? bypass(p, flow, set) : drop_as(XLVS_DROP_DESTINATION_GONE);
	if (likely((dest->flags & plain) == XLVS_DEST_AVAILABLE)) {
		account(dest, dest_row, reply, p->length);
	} else if (dest->flags & plain & XLVS_DEST_SPECIAL) {
		bpf_tail_call(ctx, &programs, XLVS_PROG_SPECIAL);
		return drop_as(XLVS_DROP_RACE);
	} else if (!reply) {
		return destination_gone(ctx, flow, set);
	}
	if (special) {
		note_numbers(ctx, p, flow->conn, reply);
		touch_any(flow->conn, p, reply, set);
	} else {
		touch(flow->conn, p, reply, set);
	}
	if (reply)
		return forward_reply(ctx, p, flow, set, special);
	return forward_request(ctx, p, flow, dest, set, special);
}

#endif
