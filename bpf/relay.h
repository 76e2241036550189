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
#include "quote.h"
#include "walk.h"

enum relay {
	RELAY_WHOLE, /* a whole packet, behind whatever headers */
	RELAY_FIRST, /* a first fragment */
	RELAY_LATER, /* another fragment: no transport header */
	RELAY_ERROR, /* an ICMP error, or its first fragment */
};

/* What is relayed. */
struct relayed {
	enum relay kind;
	__u32 packets; /* to be counted: a datagram is one, by its first fragment */
	__u32 bytes;
	struct quote quote; /* of an error */
};

/* A first fragment's ports and checksum; that covers more than this frame, and is updated. */
static __always_inline bool translate_first(struct xdp_md *ctx, const struct packet *p,
					    const struct translation *t)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 *check = check_field(data, end, p);
	__be16 *ports = data + l4_of(p);
	__u64 old, new;

	if (!check || (void *)(ports + 2) > end)
		return false;
	ports[0] = t->sport;
	ports[1] = t->dport;
	if (p->protocol == IPPROTO_UDP && !*check)
		return true;
	old = sum_words(p->saddr, p->family) + sum_words(p->daddr, p->family) + p->sport + p->dport;
	new = sum_words(t->saddr, p->family) + sum_words(t->daddr, p->family) + t->sport + t->dport;
	*check = csum_replace(*check, old, new);
	if (p->protocol == IPPROTO_UDP && !*check)
		*check = 0xffff;
	return true;
}

/* NAT of what is relayed; ttl_step as in translate(). */
static __always_inline bool relay_translate(struct xdp_md *ctx, const struct packet *p,
					    const struct translation *t, const struct relayed *r,
					    bool reply, __u8 ttl_step)
{
	if (r->kind == RELAY_WHOLE)
		return translate(ctx, p, t, ttl_step);
	if (r->kind == RELAY_FIRST && !translate_first(ctx, p, t))
		return false;
	if (r->kind == RELAY_ERROR && !translate_quote(ctx, p, t, &r->quote, reply))
		return false;
	return translate_ip((void *)(long)ctx->data, (void *)(long)ctx->data_end, p, t, ttl_step);
}

/* Count it, and note it on the connection: errors leave no trace there, as in IPVS. */
static __always_inline void relay_note(const struct packet *p, const struct flow *flow,
				       const struct xlvs_dest *dest, const struct relayed *r,
				       const struct xlvs_settings *set)
{
	struct xlvs_conn *conn = flow->conn;
	bool reply = is_reply(flow);

	if (dest->flags & XLVS_DEST_AVAILABLE)
		account_part(dest, conn->dest, reply, r->packets, r->bytes);
	if (r->kind == RELAY_ERROR)
		return;
	if (r->kind == RELAY_LATER)
		conn->seen = now();
	else
		touch(conn, p, reply, set);
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
static __always_inline enum xlvs_outcome relay_way_back(struct xdp_md *ctx, const struct packet *p,
							struct xlvs_conn *conn, const __u8 *source,
							const struct xlvs_settings *set,
							struct xlvs_hop *hop)
{
	struct xlvs_scratch *notes = scratch_get();
	struct xlvs_hop *cache = &conn->back;

	if (!same_address(conn->caddr, p->daddr, p->family)) {
		if (!notes)
			return XLVS_DROP_NO_ROUTE;
		__builtin_memset(&notes->hop, 0, sizeof(notes->hop));
		cache = &notes->hop;
	}
	return hop_resolve(ctx, cache, p->family, source, p->daddr, set, hop);
}

static __always_inline int relay_reply(struct xdp_md *ctx, const struct packet *p,
				       const struct flow *flow, const struct relayed *r,
				       const struct xlvs_settings *set, const struct xlvs_hop *own)
{
	struct xlvs_conn *conn = flow->conn;
	struct translation t = { .sport = conn->vport, .dport = p->dport };
	bool mine = conn->flags & XLVS_CONN_OWN;
	enum xlvs_outcome outcome = XLVS_FORWARDED;
	struct xlvs_hop hop;

	set_address(t.saddr, conn->vaddr, p->family);
	set_address(t.daddr, p->daddr, p->family);
	if (!mine && p->ttl <= 1)
		return relay_refuse(ctx, p, r, t.saddr, NOBODY, XLVS_DROP_TTL);
	if (!mine)
		outcome = relay_way_back(ctx, p, conn, t.saddr, set, &hop);
	if (!flow_holds(flow))
		outcome = XLVS_DROP_RACE;
	if (outcome)
		return drop_as(outcome);
	if (!mine && !needs_companion(&hop) && p->length > hop.mtu)
		return relay_too_big(ctx, p, flow, r, t.saddr, NOBODY, hop.mtu);
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
				      const struct xlvs_hop *own, __u32 method)
{
	__u32 link = sizeof(struct ethhdr) + hop_tags(hop) * VLAN_TAG;
	bool ready;

	if (method == XLVS_MASQ)
		ready = relay_translate(ctx, p, t, r, false, 1);
	else if (r->kind == RELAY_WHOLE)
		ready = pass_on(ctx, p);
	else
		ready = decrement_ttl((void *)(long)ctx->data, (void *)(long)ctx->data_end, p);
	if (!ready)
		return drop_as(XLVS_DROP_MALFORMED);
	if (method != XLVS_TUNNEL)
		return relay_emit(ctx, hop, own, p->l3, p->family, dest->address, false);
	if (!encapsulate(ctx, p, dest, link))
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
	__u32 counted = method == XLVS_MASQ ? NOBODY : conn->dest;
	bool here = flags & XLVS_CONN_LOCAL;
	struct translation t = { .sport = p->sport, .dport = conn->dport };
	enum xlvs_outcome outcome = XLVS_FORWARDED;
	struct xlvs_hop hop;

	set_address(t.saddr, p->saddr, p->family);
	set_address(t.daddr, conn->daddr, p->family);
	if (!here && p->ttl <= 1)
		return relay_refuse(ctx, p, r, p->daddr, counted, XLVS_DROP_TTL);
	if (!here)
		outcome = hop_resolve(ctx, &dest->hop, dest->family, 0, dest->address, set, &hop);
	if (!flow_holds(flow))
		outcome = XLVS_DROP_RACE;
	if (outcome)
		return drop_as(outcome);
	if (here) {
		if (method == XLVS_MASQ && !relay_translate(ctx, p, &t, r, false, 0))
			return drop_as(XLVS_DROP_MALFORMED);
		return pass_as(XLVS_LOCAL);
	}
	if (method == XLVS_TUNNEL)
		overhead = tunnel_header(dest);
	if (!needs_companion(&hop) && p->length + overhead > hop.mtu)
		return relay_too_big(ctx, p, flow, r, p->daddr, counted, hop.mtu - overhead);
	return relay_send(ctx, p, dest, &t, r, &hop, own, method);
}

/* Send what belongs to a connection on its way. */
static __always_inline int relay(struct xdp_md *ctx, const struct packet *p,
				 const struct flow *flow, const struct relayed *r,
				 const struct xlvs_settings *set)
{
	__u32 row = flow->conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);
	struct xlvs_hop own = {};

	if ((flow->conn->flags & XLVS_CONN_METHOD) == XLVS_BYPASS)
		return pass_as(XLVS_BYPASSED);
	if (!dest)
		return drop_as(XLVS_DROP_DESTINATION_GONE);
	if (!(dest->flags & XLVS_DEST_AVAILABLE) && !is_reply(flow) && r->kind != RELAY_ERROR)
		return destination_gone(ctx, flow, set);
	if (bpf_xdp_load_bytes(ctx, 0, own.dmac, 12)) /* both link addresses, as they came */
		return drop_as(XLVS_DROP_MALFORMED);
	relay_note(p, flow, dest, r, set);
	if (is_reply(flow))
		return relay_reply(ctx, p, flow, r, set, &own);
	return relay_request(ctx, p, flow, dest, r, set, &own);
}

#endif
