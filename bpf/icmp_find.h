/* SPDX-License-Identifier: GPL-2.0-only */
/* ICMP errors: which they are, and the connection that they are about. */
#ifndef XLVS_ICMP_FIND_H
#define XLVS_ICMP_FIND_H

#include "error.h"
#include "quote.h"
#include "service.h"

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

/* The other direction's packet. */
static __always_inline void turn_round(const struct packet *p, struct packet *other)
{
	copy_address(other->saddr, p->daddr);
	copy_address(other->daddr, p->saddr);
	other->sport = p->dport;
	other->dport = p->sport;
	other->protocol = p->protocol;
	other->family = p->family;
}

/* An error sent on its way back by somebody else, about a packet that the director relayed. */
static __always_inline bool about_request(struct xlvs_scratch *notes, struct flow *flow)
{
	turn_round(&notes->about, &notes->turned);
	return conn_find(&notes->turned, flow) && !is_reply(flow) &&
	       !has_reply_key(flow->conn->flags);
}

/*
 * What DR and TUN sent is answered past the director: an error that comes by is one answer.
 * From an IPv4 VIP it comes no further: the kernel takes it for a martian.
 */
static __always_inline void account_passing(const struct packet *p, const struct flow *flow)
{
	__u32 row = flow->conn->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);

	if (p->family == XLVS_IPV4 && same_address(p->saddr, flow->conn->vaddr, p->family))
		return;
	if (dest && dest->flags & XLVS_DEST_AVAILABLE)
		account_part(dest, row, true, 1, p->length);
}

/*
 * The connection that the error in the scratch is about. False for what is left to the
 * kernel; then notes->about.protocol is 0 where there is nothing quoted.
 */
static __always_inline bool icmp_find(struct xdp_md *ctx, struct xlvs_scratch *notes,
				      struct flow *flow)
{
	const struct packet *p = &notes->packet;
	struct icmp_header head;

	notes->about.protocol = 0;
	if (l4_length(p) < sizeof(head) || bpf_xdp_load_bytes(ctx, p->l4, &head, sizeof(head)) ||
	    !is_icmp_error(head.type, p->family))
		return false;
	notes->quote.icmp = p->l4;
	notes->error_quote = p->l4 + sizeof(head);
	return read_quote(ctx, p->l4 + sizeof(head), p->family) && conn_find(&notes->about, flow);
}

#endif
