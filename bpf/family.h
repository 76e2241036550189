/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * FULLNAT from one family to the other: the client speaks one, the real server the other. IP
 * headers are translated as RFC 7915 has it, ICMP errors with what they quote (icmp_family.h).
 * Addresses need no mapping: the connection has all four.
 *
 * The new header is written in front of the transport header, and the frame moved to begin
 * where the link header then has its room; what stood before (options, extension headers) goes.
 */
#ifndef XLVS_FAMILY_H
#define XLVS_FAMILY_H

#include "icmp_family.h"
#include "relay.h"

/* Longest IPv6 packet that goes on without DF: routers behind may fragment it (RFC 7915, 5.1). */
#define FAMILY_UNCUT 1260

/* Both ends of the packet as the other side is to see it. */
static __always_inline void ends_across(const struct xlvs_conn *conn, bool reply,
					struct translation *t)
{
	copy_address(t->saddr, reply ? conn->vaddr : conn->laddr);
	copy_address(t->daddr, reply ? conn->caddr : conn->daddr);
	t->sport = reply ? conn->vport : conn->lport;
	t->dport = reply ? conn->cport : conn->dport;
	if (conn->flags & XLVS_CONN_SHIFTED)
		shift_numbers(conn, reply, t);
}

/* What the new IP header takes from the old one, and from the fragment header. */
static __always_inline bool head_read(struct xdp_md *ctx, const struct packet *p,
				      const struct fragment *f, const struct relayed *r,
				      struct ip_head *h)
{
	bool part = r->kind == RELAY_FIRST || r->kind == RELAY_LATER || (f->more && !f->offset);

	if (!ip_head_read(ctx, p->l3, p->family, h))
		return false;
	h->family = p->family == XLVS_IPV4 ? XLVS_IPV6 : XLVS_IPV4;
	h->protocol = p->protocol;
	h->ttl = p->ttl - 1;
	h->payload = l4_length(p);
	h->fragment = part;
	if (part) {
		h->id = h->family == XLVS_IPV6 ? (__u32)bpf_ntohs(f->id) : bpf_ntohl(f->id);
		h->offset = f->offset;
		h->more = f->more;
		h->dont_fragment = false;
	} else if (h->family == XLVS_IPV4) {
		h->dont_fragment = h->payload + sizeof(struct ipv6hdr) > FAMILY_UNCUT;
		h->id = h->dont_fragment ? 0 : bpf_get_prandom_u32();
	}
	return true;
}

/*
 * Ports, numbers and checksum of a transport header that stands behind its new IP header: p is
 * the packet as it was, q as it is.
 */
static __always_inline bool transport_across(struct xdp_md *ctx, const struct packet *p,
					     const struct packet *q, const struct translation *t,
					     bool whole)
{
	void *data = data_of(ctx), *end = end_of(ctx);
	__u16 *check = check_field(data, end, q);
	__be16 *ports = data + l4_of(q);
	__u64 old = 0, new = 0;

	if (p->protocol == IPPROTO_SCTP)
		return whole ? translate_sctp(ctx, q, t)
			     : ports_of(&t->sport) == ports_of(&p->sport);
	if (!check || (void *)(ports + 2) > end)
		return false;
	ports[0] = t->sport;
	ports[1] = t->dport;
	if (p->protocol == IPPROTO_UDP && !*check && !whole)
		return q->family == XLVS_IPV4; /* RFC 7915, 4.5: IPv6 must have one */
	if (t->sequence | t->acknowledged && !translate_numbers(end, ports, p, t, &old, &new))
		return false;
	if (whole && (checksum_partial(p, *check) || !*check))
		return checksum_write(ctx, q, t->saddr, t->daddr);
	old += sum_ends(p->saddr, p->daddr, p->sport, p->dport, p->family);
	new += sum_ends(t->saddr, t->daddr, t->sport, t->dport, q->family);
	*check = csum_replace(*check, old, new);
	if (p->protocol == IPPROTO_UDP && !*check)
		*check = 0xffff;
	return true;
}

/* Rewrite all of the packet; its IP header stands at room then. */
static __always_inline bool cross(struct xdp_md *ctx, struct xlvs_scratch *notes,
				  const struct relayed *r, const struct ip_head *h,
				  const struct translation *t, __u32 room)
{
	const struct packet *p = &notes->packet;
	__u32 size = ip_head_size(h);
	struct packet *q = &notes->turned;

	if (r->kind == RELAY_ERROR)
		return error_across(ctx, notes, h, t, room);
	if (bpf_xdp_adjust_head(ctx, (int)p->l4 - (int)(room + size)) ||
	    !ip_head_write(ctx, room, h, t->saddr, t->daddr))
		return false;
	*q = *p;
	q->family = h->family;
	q->l3 = room;
	q->l4 = room + size;
	q->length = size + h->payload;
	return r->kind == RELAY_LATER || transport_across(ctx, p, q, t, r->kind == RELAY_WHOLE);
}

/* Its sender is told how long packets may be, in its own family's measure. */
static __always_inline int across_too_big(struct xdp_md *ctx, const struct packet *p,
					  const struct flow *flow, const struct relayed *r,
					  const struct ip_head *h, const __u8 *source, __u32 mtu)
{
	__u32 ingress = ctx->ingress_ifindex;
	struct xlvs_port *port = bpf_map_lookup_elem(&ports, &ingress);

	/* Segments not cut yet: nobody here cuts them for the other family. */
	if (port && port->flags & XLVS_PORT_GENERIC && p->length > port->mtu)
		return drop_as(XLVS_DROP_COMPANION);
	mtu -= ip_head_size(h);
	/* IPv4 may be cut on the way in, and then needs a fragment header on the way out. */
	mtu += p->family == XLVS_IPV6 ? sizeof(struct ipv6hdr)
				      : sizeof(struct iphdr) - FRAGMENT_HEADER;
	return relay_too_big(ctx, p, flow, r, source, NOBODY, mtu);
}

/* The way out; what goes to a real server has no source there (route_lookup). */
static __always_inline enum xlvs_outcome
way_across(struct xdp_md *ctx, const struct flow *flow, struct xlvs_dest *dest,
	   const struct translation *t, const struct xlvs_settings *set, struct xlvs_hop *hop)
{
	struct xlvs_conn *conn = flow->conn;
	enum xlvs_outcome outcome;

	if (is_reply(flow))
		outcome = hop_resolve(ctx, &conn->back, conn->family, t->saddr, t->daddr, set, hop);
	else
		outcome = hop_resolve(ctx, &dest->hop, dest->family, 0, t->daddr, set, hop);
	return flow_holds(flow) ? outcome : XLVS_DROP_RACE;
}

static __always_inline int send_across(struct xdp_md *ctx, struct xlvs_scratch *notes,
				       const struct flow *flow, const struct relayed *r,
				       struct xlvs_dest *dest, const struct xlvs_settings *set)
{
	const struct packet *p = &notes->packet;
	bool reply = is_reply(flow);
	enum xlvs_outcome outcome;
	struct translation t = {};
	struct ip_head h = {};
	struct xlvs_hop hop;
	__u32 room;

	ends_across(flow->conn, reply, &t);
	if (p->ttl <= 1)
		return relay_refuse(ctx, p, r, p->daddr, NOBODY, XLVS_DROP_TTL);
	if (!head_read(ctx, p, &notes->fragment, r, &h))
		return drop_as(XLVS_DROP_MALFORMED);
	outcome = way_across(ctx, flow, dest, &t, set, &hop);
	if (outcome)
		return drop_as(outcome);
	if (!needs_companion(&hop) && r->kind != RELAY_ERROR &&
	    ip_head_size(&h) + h.payload > hop.mtu)
		return across_too_big(ctx, p, flow, r, &h, p->daddr, hop.mtu);
	room = sizeof(struct ethhdr) + hop_tags(&hop) * VLAN_TAG;
	if (!cross(ctx, notes, r, &h, &t, room))
		return drop_as(r->kind == RELAY_ERROR ? XLVS_DROP_NO_WORDS : XLVS_DROP_MALFORMED);
	return relay_emit(ctx, &hop, &notes->own, room, h.family, t.daddr, reply);
}

/* The family program: as the relay program's, everything stands in the CPU's scratch. */
static __always_inline int handle_family(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	struct xlvs_scratch *notes = scratch_get();
	struct xlvs_dest *dest;
	struct relayed r = {};
	struct flow flow;
	__u32 row;

	if (!notes)
		return XDP_PASS;
	r.kind = notes->relayed.kind;
	if (!relayed_flow(notes, &flow))
		return drop_as(XLVS_DROP_RACE);
	row = flow.conn->dest;
	dest = bpf_map_lookup_elem(&dests, &row);
	if (!dest)
		return drop_as(XLVS_DROP_DESTINATION_GONE);
	return send_across(ctx, notes, &flow, &r, dest, set);
}

#endif
