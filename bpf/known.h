/* SPDX-License-Identifier: GPL-2.0-only */
/* A packet of a known connection: count it, move the state, forward it. */
#ifndef XLVS_KNOWN_H
#define XLVS_KNOWN_H

#include "emit.h"
#include "error.h"
#include "forward/dr.h"
#include "forward/nat.h"
#include "forward/tun.h"
#include "service.h"
#include "tcp.h"

#define IPV6_MIN_MTU 1280

/* Why the companion must take this packet over, or 0. */
static __always_inline enum xlvs_outcome needs_companion(const struct xlvs_hop *hop)
{
	if (hop->flags & XLVS_HOP_COMPANION_DEVICE)
		return XLVS_HANDED_DEVICE;
	if (hop->flags & XLVS_HOP_COMPANION_NEIGHBOUR)
		return XLVS_HANDED_NEIGHBOUR;
	return XLVS_FORWARDED;
}

/*
 * A packet over the next hop's MTU. In generic mode it may be a train of segments that
 * the sender has not cut yet (nothing that long comes by wire): the companion knows how
 * long they are. Else the sender must learn.
 */
static __always_inline int too_big(struct xdp_md *ctx, const struct packet *p, __u32 mtu)
{
	__u32 ingress = ctx->ingress_ifindex;
	struct xlvs_port *port = bpf_map_lookup_elem(&ports, &ingress);

	if (port && port->flags & XLVS_PORT_GENERIC && p->length > port->mtu)
		return hand_over(ctx, XLVS_HANDED_SEGMENTS);
	if (p->family == XLVS_IPV6 && mtu < IPV6_MIN_MTU)
		mtu = IPV6_MIN_MTU;
	return refuse(ctx, p, XLVS_DROP_TOO_BIG, mtu);
}

/* Note the packet on its connection: when, which state, how many. */
static __always_inline void touch(struct xlvs_conn *conn, const struct packet *p, bool reply,
				  const struct xlvs_settings *set)
{
	__u32 time = now();

	if (time - conn->seen >= set->hz / 4)
		conn->seen = time;
	if (p->protocol == IPPROTO_TCP)
		tcp_step(conn, p, reply, set);
	else if (conn->timeout != set->udp_timeout)
		conn->timeout = set->udp_timeout;
	if (!reply)
		conn->in_packets++;
}

/* From the real server back to the client. */
static __always_inline int forward_reply(struct xdp_md *ctx, const struct packet *p,
					 struct xlvs_conn *conn, const struct xlvs_settings *set)
{
	struct translation t = {
		.saddr = conn->vaddr, .sport = conn->vport, .daddr = p->daddr, .dport = p->dport
	};
	enum xlvs_outcome outcome;
	struct xlvs_hop hop;

	if (conn->flags & XLVS_CONN_OWN)
		return hand_over(ctx, XLVS_HANDED_OWN);
	outcome = hop_resolve(ctx, &conn->back, p->family, conn->vaddr, conn->caddr, set, &hop);
	if (outcome)
		return drop_as(outcome);
	outcome = needs_companion(&hop);
	if (outcome)
		return hand_over(ctx, outcome);
	if (unlikely(p->ttl <= 1))
		return refuse(ctx, p, XLVS_DROP_TTL, 0);
	if (unlikely(p->length > hop.mtu))
		return too_big(ctx, p, hop.mtu);
	if (!translate(ctx, p, &t, 1))
		return drop_as(XLVS_DROP_MALFORMED);
	return emit(ctx, &hop, p->l3, p->family);
}

/* To a real server that is the director itself: the stack takes it from here. */
static __always_inline int deliver(struct xdp_md *ctx, const struct packet *p,
				   struct xlvs_conn *conn, __u32 method)
{
	struct translation t = {
		.saddr = p->saddr, .sport = p->sport, .daddr = conn->daddr, .dport = conn->dport
	};

	if (method == XLVS_MASQ && !translate(ctx, p, &t, 0))
		return drop_as(XLVS_DROP_MALFORMED);
	return pass_as(XLVS_LOCAL);
}

/* From the client to the real server. */
static __always_inline int forward_request(struct xdp_md *ctx, const struct packet *p,
					   struct xlvs_conn *conn, struct xlvs_dest *dest,
					   const struct xlvs_settings *set)
{
	__u32 method = conn->flags & XLVS_CONN_METHOD, overhead = 0;
	struct translation t = {
		.saddr = p->saddr, .sport = p->sport, .daddr = conn->daddr, .dport = conn->dport
	};
	enum xlvs_outcome outcome;
	struct xlvs_hop hop;

	if (conn->flags & XLVS_CONN_LOCAL)
		return deliver(ctx, p, conn, method);
	outcome = hop_resolve(ctx, &dest->hop, dest->family, 0, dest->address, set, &hop);
	if (outcome)
		return drop_as(outcome);
	outcome = needs_companion(&hop);
	if (outcome)
		return hand_over(ctx, outcome);
	if (unlikely(p->ttl <= 1))
		return refuse(ctx, p, XLVS_DROP_TTL, 0);
	if (method == XLVS_TUNNEL)
		overhead = tunnel_header(dest);
	if (unlikely(p->length + overhead > hop.mtu))
		return too_big(ctx, p, hop.mtu - overhead);
	if (method == XLVS_MASQ) {
		if (!translate(ctx, p, &t, 1))
			return drop_as(XLVS_DROP_MALFORMED);
		return emit(ctx, &hop, p->l3, p->family);
	}
	if (!pass_on(ctx, p))
		return drop_as(XLVS_DROP_MALFORMED);
	if (method == XLVS_ROUTE)
		return emit(ctx, &hop, p->l3, p->family);
	if (!encapsulate(ctx, p, dest, sizeof(struct ethhdr) + hop_tags(&hop) * VLAN_TAG))
		return drop_as(XLVS_DROP_MALFORMED);
	return emit(ctx, &hop, sizeof(struct ethhdr) + hop_tags(&hop) * VLAN_TAG, dest->family);
}

static __always_inline int handle_known(struct xdp_md *ctx, const struct packet *p,
					struct xlvs_conn *conn, __u32 ref,
					const struct xlvs_settings *set)
{
	bool reply = ref & XLVS_REF_REPLY;
	__u32 dest_row = conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &dest_row);

	if (!dest)
		return drop_as(XLVS_DROP_DESTINATION_GONE);
	if (likely(dest->flags & XLVS_DEST_AVAILABLE))
		account(dest, dest_row, reply, p->length);
	else if (!reply)
		return drop_as(XLVS_DROP_DESTINATION_GONE);
	touch(conn, p, reply, set);
	if (reply)
		return forward_reply(ctx, p, conn, set);
	return forward_request(ctx, p, conn, dest, set);
}

#endif
