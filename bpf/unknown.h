/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nat_icmp_send: a real server under NAT speaks out of no connection, and is told so, unless
 * it ends one (ip_vs_out of net/netfilter/ipvs/ip_vs_core.c).
 */
#ifndef XLVS_UNKNOWN_H
#define XLVS_UNKNOWN_H

#include "error.h"
#include "sctp.h"
#include "forward/dr.h"

/* The destination of NAT that has this address and port, or null. */
static __always_inline struct xlvs_dest *server_of(const struct packet *p, __u8 protocol)
{
	__u32 row = server_at_source(p, protocol, XLVS_ADDRESS_REAL);

	return row == NOBODY ? 0 : bpf_map_lookup_elem(&dests, &row);
}

static __always_inline bool ends_connection(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP    ? p->tcp & TCP_RST
	       : p->protocol == IPPROTO_SCTP ? p->tcp == SCTP_ABORT
					     : false;
}

static __always_inline int refuse_unknown(struct xdp_md *ctx, const struct packet *p,
					  const struct xlvs_settings *set)
{
	struct xlvs_dest *dest;

	if (!set->sysctl.nat_icmp_send || !p->sport || ends_connection(p) || p->ttl <= 1)
		return pass_as(XLVS_NOT_OURS);
	dest = server_of(p, p->protocol);
	if (!dest)
		dest = server_of(p, 0);
	if (!dest || !*(__u32 *)dest->source)
		return pass_as(XLVS_NOT_OURS);
	/* The kernel has begun to forward it. */
	if (!decrement_ttl(data_of(ctx), end_of(ctx), p))
		return drop_as(XLVS_DROP_MALFORMED);
	return refuse(ctx, p, dest->source, NOBODY, XLVS_DROP_UNKNOWN_ANSWER, 0);
}

#endif
