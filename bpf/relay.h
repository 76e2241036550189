/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Forwarding of what is not one whole, plain datagram: fragments, packets with IPv6
 * extension headers, ICMP errors about a connection. Unlike the fast path it makes a packet
 * ready to leave even where the companion has to find the neighbour, so that the companion
 * need not understand it.
 */
#ifndef XLVS_RELAY_H
#define XLVS_RELAY_H

#include "known.h"
#include "leave.h"
#include "quote.h"
#include "walk.h"

/* A first fragment's ports and checksum; that covers more than this frame, and is updated. */
static __always_inline bool translate_first(struct xdp_md *ctx, const struct packet *p,
					    const struct translation *t)
{
	void *data = data_of(ctx), *end = end_of(ctx);
	__u16 *check = check_field(data, end, p);
	__be16 *ports = data + l4_of(p);
	__u64 old = 0, new = 0;

	/* SCTP's sum cannot follow other ports without the whole packet's length. */
	if (!is_plain(p->protocol))
		return ports_of(&t->sport) == ports_of(&p->sport);
	if (!check || (void *)(ports + 2) > end)
		return false;
	ports[0] = t->sport;
	ports[1] = t->dport;
	if (p->protocol == IPPROTO_UDP && !*check)
		return true;
	if (t->sequence | t->acknowledged && !translate_numbers(end, ports, p, t, &old, &new))
		return false;
	old += sum_ends(p->saddr, p->daddr, p->sport, p->dport, p->family);
	new += sum_ends(t->saddr, t->daddr, t->sport, t->dport, p->family);
	*check = csum_replace(*check, old, new);
	if (p->protocol == IPPROTO_UDP && !*check)
		*check = 0xffff;
	return true;
}

/* What is relayed, as the verifier likes it: read from the scratch once. */
struct relayed {
	enum relay kind;
	__u32 packets;
	__u32 bytes;
	const struct quote *quote;
	bool local; /* its connection has a local address: quotations change at both ends */
};

/* NAT of what is relayed; ttl_step as in translate(). */
static __always_inline bool relay_translate(struct xdp_md *ctx, const struct packet *p,
					    const struct translation *t, const struct relayed *r,
					    bool reply, __u8 ttl_step)
{
	if (r->kind == RELAY_WHOLE)
		return translate_any(ctx, p, t, ttl_step);
	if (r->kind == RELAY_FIRST && !translate_first(ctx, p, t))
		return false;
	if (r->kind == RELAY_ERROR && !translate_quote(ctx, p, t, r->quote, reply, r->local))
		return false;
	return translate_ip(data_of(ctx), end_of(ctx), p, t, ttl_step);
}

/* Count it, and note it on the connection: errors leave no trace there, as in IPVS. */
static __always_inline void relay_note(struct xdp_md *ctx, const struct packet *p,
				       const struct flow *flow, const struct xlvs_dest *dest,
				       const struct relayed *r, const struct xlvs_settings *set)
{
	struct xlvs_conn *conn = flow->conn;
	bool reply = is_reply(flow);

	if (dest->flags & XLVS_DEST_AVAILABLE)
		account_part(dest, conn->dest, reply, r->packets, r->bytes);
	if (r->kind == RELAY_ERROR)
		return;
	if (r->kind == RELAY_LATER) {
		conn->seen = now();
	} else {
		note_numbers(ctx, p, conn, reply);
		touch_any(conn, p, reply, set);
	}
}

/* An error due for what is relayed: never about an ICMP error, nor an IPv4 fragment but the first. */
static __always_inline int relay_refuse(struct xdp_md *ctx, const struct packet *p,
					const struct relayed *r, const __u8 *source, __u32 counted,
					enum xlvs_outcome outcome)
{
	if (r->kind == RELAY_ERROR || (r->kind == RELAY_LATER && p->family == XLVS_IPV4))
		return drop_as(outcome);
	return refuse(ctx, p, source, counted, outcome, 0);
}

static __always_inline int relay_too_big(struct xdp_md *ctx, const struct packet *p,
					 const struct flow *flow, const struct relayed *r,
					 const __u8 *source, __u32 counted, __u32 mtu)
{
	if (r->kind == RELAY_ERROR)
		return drop_as(XLVS_DROP_TOO_BIG);
	return too_big(ctx, p, source, counted, flow, mtu);
}

/* On to the hop, or to the companion where that cannot be used as it is. */
static __always_inline int relay_emit(struct xdp_md *ctx, const struct xlvs_hop *hop,
				      const struct xlvs_hop *own, __u32 room, __u8 family,
				      const __u8 *target, bool from_source)
{
	enum xlvs_outcome companion = needs_companion(hop);

	if (unlikely(companion))
		return hand_ready(ctx, companion, own, room, family, target, from_source);
	return emit(ctx, hop, room, family);
}

/* The answer's way: an error may go to somebody else than the client. */
static __always_inline enum xlvs_outcome
relay_way_back(struct xdp_md *ctx, const struct packet *p, struct xlvs_conn *conn,
	       const struct translation *t, const struct xlvs_settings *set, struct xlvs_hop *hop)
{
	struct xlvs_scratch *notes = scratch_get();
	struct xlvs_hop *cache = &conn->back;

	if (!same_address(conn->caddr, t->daddr, p->family)) {
		if (!notes)
			return XLVS_DROP_NO_ROUTE;
		__builtin_memset(&notes->hop, 0, sizeof(notes->hop));
		cache = &notes->hop;
	}
	return hop_resolve(ctx, cache, p->family, t->saddr, t->daddr, set, hop);
}

static __always_inline int relay_reply(struct xdp_md *ctx, const struct packet *p,
				       const struct flow *flow, const struct relayed *r,
				       const struct xlvs_settings *set, const struct xlvs_hop *own)
{
	struct xlvs_conn *conn = flow->conn;
	struct translation t = {};
	bool mine = conn->flags & XLVS_CONN_OWN;
	enum xlvs_outcome outcome = XLVS_FORWARDED;
	struct xlvs_hop hop;

	ends_outside(p, conn, &t);
	if (!mine && p->ttl <= 1)
		return relay_refuse(ctx, p, r, refuser(p, conn), NOBODY, XLVS_DROP_TTL);
	if (!mine)
		outcome = relay_way_back(ctx, p, conn, &t, set, &hop);
	if (!flow_holds(flow))
		outcome = XLVS_DROP_RACE;
	if (outcome)
		return drop_as(outcome);
	if (!mine && !needs_companion(&hop) && p->length > hop.mtu)
		return relay_too_big(ctx, p, flow, r, refuser(p, conn), NOBODY, hop.mtu);
	if (!relay_translate(ctx, p, &t, r, true, !mine))
		return drop_as(XLVS_DROP_MALFORMED);
	if (mine)
		return hand_ready(ctx, XLVS_HANDED_OWN, own, p->l3, p->family, t.daddr, true);
	return relay_emit(ctx, &hop, own, p->l3, p->family, t.daddr, true);
}

/* What each method does to a packet that fits. */
static __always_inline int relay_send(struct xdp_md *ctx, const struct packet *p,
				      const struct xlvs_dest *dest, const struct translation *t,
				      const struct relayed *r, const struct xlvs_hop *hop,
				      const struct xlvs_hop *own, const struct shim *shim,
				      __u32 method)
{
	__u32 link = sizeof(struct ethhdr) + hop_tags(hop) * VLAN_TAG;
	bool ready;

	if (method == XLVS_TUNNEL && shim->size && r->kind == RELAY_WHOLE)
		return tunnel(ctx, p, dest, shim, link)
			       ? relay_emit(ctx, hop, own, link, dest->family, dest->address, false)
			       : drop_as(XLVS_DROP_MALFORMED);

	if (is_translated(method))
		ready = relay_translate(ctx, p, t, r, false, 1);
	else if (r->kind == RELAY_WHOLE)
		ready = pass_on_any(ctx, p);
	else
		ready = decrement_ttl(data_of(ctx), end_of(ctx), p);
	if (!ready)
		return drop_as(XLVS_DROP_MALFORMED);
	if (method != XLVS_TUNNEL)
		return relay_emit(ctx, hop, own, p->l3, p->family, dest->address, false);
	if (!(shim->size ? encapsulate_shim(ctx, p, dest, shim, link)
			 : encapsulate(ctx, p, dest, link)))
		return drop_as(XLVS_DROP_MALFORMED);
	return relay_emit(ctx, hop, own, link, dest->family, dest->address, false);
}

static __always_inline int relay_request(struct xdp_md *ctx, const struct packet *p,
					 const struct flow *flow, struct xlvs_dest *dest,
					 const struct relayed *r, const struct xlvs_settings *set,
					 const struct xlvs_hop *own)
{
	struct xlvs_conn *conn = flow->conn;
	__u32 flags = conn->flags, method = flags & XLVS_CONN_METHOD, overhead = 0;
	__u32 counted = is_translated(method) ? NOBODY : conn->dest;
	bool here = flags & XLVS_CONN_LOCAL;
	struct translation t = {};
	enum xlvs_outcome outcome = XLVS_FORWARDED;
	struct shim shim = {};
	struct xlvs_hop hop;

	ends_inside(p, conn, &t);
	if (!here && p->ttl <= 1)
		return relay_refuse(ctx, p, r, p->daddr, counted, XLVS_DROP_TTL);
	if (!here)
		outcome = hop_resolve(ctx, &dest->hop, dest->family, 0, dest->address, set, &hop);
	if (!flow_holds(flow))
		outcome = XLVS_DROP_RACE;
	if (outcome)
		return drop_as(outcome);
	if (here) {
		if (is_translated(method) && !relay_translate(ctx, p, &t, r, false, 0))
			return drop_as(XLVS_DROP_MALFORMED);
		return pass_as(XLVS_LOCAL);
	}
	if (method == XLVS_TUNNEL) {
		shim_of(p, conn, dest, set, true, r->kind == RELAY_WHOLE && is_partial(ctx, p),
			&shim);
		overhead = tunnel_header(dest) + shim.size;
	}
	if (!needs_companion(&hop) && p->length + overhead > hop.mtu)
		return relay_too_big(ctx, p, flow, r, p->daddr, counted, hop.mtu - overhead);
	return relay_send(ctx, p, dest, &t, r, &hop, own, &shim, method);
}

/* Send what belongs to a connection on its way. */
static __always_inline int relay(struct xdp_md *ctx, struct xlvs_scratch *notes,
				 const struct flow *flow, const struct xlvs_settings *set)
{
	const struct relayed r = {
		.kind = notes->relayed.kind,
		.packets = notes->relayed.packets,
		.bytes = notes->relayed.bytes,
		.quote = &notes->quote,
		.local = has_local(flow->conn->flags),
	};
	__u32 row = flow->conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);

	if ((flow->conn->flags & XLVS_CONN_METHOD) == XLVS_BYPASS)
		return pass_as(XLVS_BYPASSED);
	if (!dest)
		return drop_as(XLVS_DROP_DESTINATION_GONE);
	if (!is_reply(flow) && r.kind != RELAY_ERROR && denied_by_now(row))
		return drop_as(XLVS_DROP_DENIED);
	if (!(dest->flags & XLVS_DEST_AVAILABLE) && !is_reply(flow) && r.kind != RELAY_ERROR)
		return destination_gone(ctx, flow, set);
	if (bpf_xdp_load_bytes(ctx, 0, notes->own.dmac, 12)) /* both link addresses, as they came */
		return drop_as(XLVS_DROP_MALFORMED);
	if (!notes->relayed.noted)
		relay_note(ctx, &notes->packet, flow, dest, &r, set);
	if (flow->conn->flags & XLVS_CONN_OTHER_FAMILY) {
		bpf_tail_call(ctx, &programs, XLVS_PROG_FAMILY);
		return drop_as(XLVS_DROP_RACE);
	}
	if (is_reply(flow))
		return relay_reply(ctx, &notes->packet, flow, &r, set, &notes->own);
	return relay_request(ctx, &notes->packet, flow, dest, &r, set, &notes->own);
}

/* The relay program: packet, connection and what it is stand in the CPU's scratch. */
static __always_inline int handle_relay(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	struct xlvs_scratch *notes = scratch_get();
	struct flow flow;
	int verdict;

	if (!notes)
		return XDP_PASS;
	if (!relayed_flow(notes, &flow))
		return drop_as(XLVS_DROP_RACE);
	verdict = relay(ctx, notes, &flow, set);
	if (notes->relayed.once && ends_at_once(flow.conn))
		conn_end(flow.conn, flow.ref);
	return verdict;
}

#endif
