/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors about a connection's packets go where those came from: ip_vs_in_icmp,
 * ip_vs_out_icmp, their _v6 brothers and handle_response_icmp of ip_vs_core.c. All else
 * of ICMP (echoes to a VIP, neighbour discovery) is the kernel's.
 */
#ifndef XLVS_ICMP_H
#define XLVS_ICMP_H

#include "leave.h"
#include "relay.h"

/* RFC 792. Parameter problems are errors, too, though IPVS leaves IPv4's to the kernel. */
#define ICMP_SOURCE_QUENCH 4
#define ICMP_PARAMETER	   12
#define ICMPV6_INFORMATION 128 /* RFC 4443, 2.1: below are errors */

static __always_inline bool is_icmp_error(__u8 type, __u8 family)
{
	if (family == XLVS_IPV6)
		return type && type < ICMPV6_INFORMATION;
	return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH ||
	       type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
}

static __always_inline bool icmp_intact(struct xdp_md *ctx, const struct packet *p)
{
	__u16 length = l4_length(p), seed = 0;

	if (p->family == XLVS_IPV6)
		seed = csum_fold(pseudo_sum(p->saddr, p->daddr, p->family, p->protocol, length));
	return checksum_range(ctx, p->l4, length, seed) == 0xffff;
}

/* An error sent on its way back by somebody else, about a packet that the director relayed. */
static __always_inline bool about_request(const struct packet *about, struct flow *flow)
{
	struct packet request = *about;

	copy_address(request.saddr, about->daddr);
	copy_address(request.daddr, about->saddr);
	request.sport = about->dport;
	request.dport = about->sport;
	return conn_find(&request, flow) && !is_reply(flow) && !has_reply_key(flow->conn->flags);
}

/* What DR and TUN sent is answered past the director: an error that comes by is one answer. */
static __always_inline void account_passing(const struct packet *p, const struct flow *flow)
{
	__u32 row = flow->conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);

	if (dest && dest->flags & XLVS_DEST_AVAILABLE)
		account_part(dest, row, true, 1, p->length);
}

/*
 * The connection that the error at p->l4 is about. q says where the quotation is. False for
 * what is left to the kernel.
 */
static __always_inline bool icmp_find(struct xdp_md *ctx, const struct packet *p, struct quote *q,
				      struct packet *about, struct flow *flow)
{
	struct icmp_header head;

	if (l4_length(p) < sizeof(head) || bpf_xdp_load_bytes(ctx, p->l4, &head, sizeof(head)) ||
	    !is_icmp_error(head.type, p->family))
		return false;
	q->icmp = p->l4;
	q->ip = p->l4 + sizeof(head);
	return read_quote(ctx, p, q, about) && conn_find(about, flow);
}

static __always_inline int handle_icmp(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	struct packet p = {}, about = {};
	struct relayed r = { .kind = RELAY_ERROR, .packets = 1 };
	struct fragment f = {};
	struct flow flow;
	enum parsed what = parse_xdp(ctx, &p);

	if (what == PARSED_EXTENSION)
		what = walk(ctx, &p, &f);
	if (what != PARSED_PROTOCOL || !is_icmp(&p) || !is_whole(&f))
		return pass_as(XLVS_NOT_OURS);
	r.bytes = p.length;
	if (!icmp_find(ctx, &p, &r.quote, &about, &flow)) {
		if (!about.protocol || !about_request(&about, &flow))
			return pass_as(XLVS_NOT_OURS);
		/* DR and TUN: counted as an answer, and routed as it is. */
		account_passing(&p, &flow);
		return pass_as(XLVS_NOT_OURS);
	}
	if (!icmp_intact(ctx, &p))
		return drop_as(XLVS_DROP_ICMP_CHECKSUM);
	return relay(ctx, &p, &flow, &r, set);
}

#endif
