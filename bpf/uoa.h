/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The client's address of UDP under FULLNAT: an IPv4 option, or one in IPv6's destination options,
 * both numbered 31 (as DPVS has it): number, length, port, address. In the first datagrams of
 * a connection, for nobody knows which of them arrives, and in one about each second:
 * the timer asks for it (expire.h). Such an option of the client's own goes no further.
 */
#ifndef XLVS_UOA_H
#define XLVS_UOA_H

#include "conn.h"
#include "insert.h"
#include "tcp_options.h"
#include "toa.h"
#include "walk.h"

#define UOA_OPTION	31
#define UOA_IPV6	24   /* a whole header: two bytes, the option, two of padding */
#define UOA_FIRST	4    /* datagrams that tell, however many are lost */
#define UOA_SAFE	1280 /* fits where the way is not known yet (RFC 8200, 5) */
#define MOST_IP_OPTIONS 40
#define IPV6_PAD1	0 /* RFC 8200, 4.2 */
#define IPV6_PADN	1
#define UOA_NOBODY	30 /* for experiments, skipped by who does not know it (RFC 4727) */
#define MOST_READ	40 /* options, or bytes of padding, of one header */

/* Make NOPs of the option where it stands in an IPv4 header. The list is of TCP's form. */
static __always_inline bool uoa_strip4(struct xdp_md *ctx, const struct packet *p,
				       struct xlvs_scratch *notes)
{
	__u32 length = p->l4 - p->l3 - sizeof(struct iphdr), at = l3_of(p) + sizeof(struct iphdr);
	__u32 size = ((length - 1) & OPTION_PLACE) + 1;
	struct option_edit *e = &notes->edit;
	struct iphdr *ip;

	if (!length)
		return true;
	__builtin_memset(e, 0, sizeof(*e));
	e->length = length;
	e->claim = UOA_OPTION;
	if (length > MOST_IP_OPTIONS || bpf_xdp_load_bytes(ctx, at, e->was, size))
		return false;
	__builtin_memcpy(e->is, e->was, sizeof(e->is));
	if (!options_edit())
		return true;
	if (bpf_xdp_store_bytes(ctx, at, e->is, size))
		return false;
	ip = data_of(ctx) + l3_of(p);
	if ((void *)(ip + 1) > end_of(ctx))
		return false;
	ip->check = csum_replace(ip->check, options_sum(e->was), options_sum(e->is));
	return true;
}

/*
 * Give the option another number wherever it stands in the destination options from `at` on, one
 * that nobody understands. Padding it cannot become: Linux drops more than seven bytes of that.
 */
__noinline int uoa_strip_header(struct xdp_md *ctx, __u32 at, __u32 end)
{
	__u8 head[2] = {}, other = UOA_NOBODY;

	for (int i = 0; i < MOST_READ && at < end; i++) {
		if (bpf_xdp_load_bytes(ctx, at, head, sizeof(head)))
			return -1;
		if (head[0] == IPV6_PAD1) {
			at++;
			continue;
		}
		if (head[0] == UOA_OPTION && bpf_xdp_store_bytes(ctx, at, &other, sizeof(other)))
			return -1;
		at += 2 + head[1];
	}
	return at < end ? -1 : 0;
}

/* The same in all headers in front of the datagram. */
static __always_inline bool uoa_strip6(struct xdp_md *ctx, const struct packet *p)
{
	__u32 at = l3_of(p) + sizeof(struct ipv6hdr), size;
	__u8 next, head[2] = {};

	if (at >= p->l4)
		return true;
	if (bpf_xdp_load_bytes(ctx, l3_of(p) + offsetof(struct ipv6hdr, nexthdr), &next, 1))
		return false;
	for (int i = 0; i < WALK_HEADERS && at < p->l4; i++) {
		if (bpf_xdp_load_bytes(ctx, at, head, sizeof(head)))
			return false;
		size = next == IPPROTO_FRAGMENT ? sizeof(struct fragment_header)
		       : next == NEXT_AH	? (head[1] + 2) * 4
						: (head[1] + 1) * 8;
		if (next == NEXT_DESTINATION && uoa_strip_header(ctx, at + 2, at + size))
			return false;
		next = head[0];
		at += size;
	}
	return true;
}

/* The option and what it stands in, into e->made; its length, or 0 where there is no room. */
static __always_inline __u32 uoa_write(const struct packet *p, const struct xlvs_conn *conn,
				       struct option_edit *e)
{
	__builtin_memset(e->made, 0, sizeof(e->made));
	if (p->family == XLVS_IPV4) {
		toa_write(e->made, conn, UOA_OPTION);
		return p->l4 - p->l3 + TOA_IPV4 <= sizeof(struct iphdr) + MOST_IP_OPTIONS ? TOA_IPV4
											  : 0;
	}
	toa_write(e->made + 2, conn, UOA_OPTION);
	e->made[0] = IPPROTO_UDP;
	e->made[1] = UOA_IPV6 / 8 - 1;
	e->made[3] -= 2; /* number and length do not count here */
	e->made[2 + TOA_IPV6] = IPV6_PADN;
	return p->l4 - p->l3 == sizeof(struct ipv6hdr) ? UOA_IPV6 : 0;
}

/* Correct the IP header in notes->payload, all but its length. */
static __always_inline void uoa_announce(struct xlvs_scratch *notes, const struct packet *p)
{
	struct ipv6hdr *ip6 = (void *)(notes->payload + l3_of(p));
	struct iphdr *ip = (void *)ip6;
	__u16 old;

	if (p->family == XLVS_IPV6) {
		ip6->nexthdr = NEXT_DESTINATION;
		return;
	}
	old = *(__u16 *)ip;
	ip->ihl += TOA_IPV4 / 4;
	ip->check = csum_replace(ip->check, old, options_sum(notes->edit.made) + *(__u16 *)ip);
}

/* Put the option in front of the datagram. */
static __always_inline bool uoa_insert(struct xdp_md *ctx, struct packet *p, __u32 size,
				       struct xlvs_scratch *notes)
{
	__u32 head = ((p->l4 - 1) & HEAD_PLACE) + 1;
	const __u8 *made = notes->edit.made;

	if (bpf_xdp_load_bytes(ctx, 0, notes->payload, head))
		return false;
	uoa_announce(notes, p);
	if (bpf_xdp_adjust_head(ctx, -(int)size) ||
	    bpf_xdp_store_bytes(ctx, 0, notes->payload, head) ||
	    (size == TOA_IPV4 ? bpf_xdp_store_bytes(ctx, head, (void *)made, TOA_IPV4)
			      : bpf_xdp_store_bytes(ctx, head, (void *)made, UOA_IPV6)) ||
	    !ip_resize(ctx, p, size))
		return false;
	p->l4 += size;
	p->length += size;
	return true;
}

/* Whether the datagram may grow by so much. What is not cut yet (GSO) grows nowhere. */
static __always_inline bool uoa_fits(struct xdp_md *ctx, const struct packet *p, __u32 size,
				     const struct xlvs_conn *conn)
{
	__u32 ingress = ctx->ingress_ifindex, row = conn->dest, mtu;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);
	struct xlvs_port *port = bpf_map_lookup_elem(&ports, &ingress);

	if (port && port->flags & XLVS_PORT_GENERIC && p->length > port->mtu)
		return false;
	/* 0 while nobody asked, or the neighbour is not resolved. */
	mtu = dest ? READ_ONCE(dest->hop.mtu) : 0;
	if (!mtu)
		mtu = UOA_SAFE;
	return p->length + size <= mtu;
}

static __always_inline void uoa_told(struct xlvs_conn *conn)
{
	__sync_fetch_and_and(&conn->flags, ~XLVS_CONN_OPENING);
}

/* Tell the real server whose datagram this is. */
static __always_inline enum xlvs_outcome
uoa_tell(struct xdp_md *ctx, struct packet *p, struct xlvs_conn *conn, struct xlvs_scratch *notes)
{
	__u32 size = uoa_write(p, conn, &notes->edit);

	if (conn->in_packets + 1 >= UOA_FIRST)
		uoa_told(conn);
	/* A server of the other family could not answer such a client: it is not told. */
	if (conn->server_family != conn->family)
		return XLVS_FORWARDED;
	if (!size || notes->relayed.kind != RELAY_WHOLE || !uoa_fits(ctx, p, size, conn)) {
		count(XLVS_TOA_LEFT_OUT);
		return XLVS_FORWARDED;
	}
	return uoa_insert(ctx, p, size, notes) ? XLVS_FORWARDED : XLVS_DROP_MALFORMED;
}

/* A datagram, or its first fragment, of a connection through a local address. */
static __always_inline enum xlvs_outcome uoa_datagram(struct xdp_md *ctx, const struct flow *flow,
						      struct xlvs_scratch *notes)
{
	struct packet *p = &notes->packet;
	struct xlvs_conn *conn = flow->conn;
	__u32 flags = READ_ONCE(conn->flags);

	if (!has_local(flags))
		return XLVS_FORWARDED;
	if (is_reply(flow)) { /* some datagram, and its option, has arrived */
		uoa_told(conn);
		return XLVS_FORWARDED;
	}
	if (!(p->family == XLVS_IPV4 ? uoa_strip4(ctx, p, notes) : uoa_strip6(ctx, p)))
		return XLVS_DROP_MALFORMED;
	return flags & XLVS_CONN_OPENING ? uoa_tell(ctx, p, conn, notes) : XLVS_FORWARDED;
}

#endif
