/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Conversations that a real server begins: a SIP server calls out, and what comes back
 * must find it (ip_vs_new_conn_out of ip_vs_core.c; among the persistence engines, only
 * sip wants it, and only for UDP).
 */
#ifndef XLVS_CALLER_H
#define XLVS_CALLER_H

#include "service.h"
#include "sip.h"

/* The destination (row) that a packet comes from, if that may begin a conversation; or NOBODY. */
static __always_inline __u32 caller_of(const struct packet *p, const struct xlvs_settings *set)
{
	if (!(set->flags & XLVS_HAS_CALLERS) || p->protocol != IPPROTO_UDP)
		return NOBODY;
	return server_at_source(p, IPPROTO_UDP, XLVS_ADDRESS_CALLER);
}

/*
 * Where a packet comes from such a server: turn it round in the scratch, as if the one
 * called had called the service, and have that admitted to this very server. *row is the
 * service's.
 */
static __always_inline bool call_turned_round(struct xdp_md *ctx, struct packet *p,
					      struct xlvs_scratch *notes,
					      const struct xlvs_settings *set, __u32 *row)
{
	__u32 caller = caller_of(p, set);
	struct xlvs_service *service;
	struct xlvs_dest *dest;

	if (caller == NOBODY)
		return false;
	dest = bpf_map_lookup_elem(&dests, &caller);
	if (!dest || !(dest->flags & XLVS_DEST_AVAILABLE))
		return false;
	*row = dest->service;
	service = bpf_map_lookup_elem(&services, row);
	if (!service || !sip_call_id(ctx, p, notes, set))
		return false;
	notes->caller = caller + 1;
	notes->foreign = 0;
	copy_address(p->saddr, p->daddr);
	copy_address(p->daddr, service->address);
	p->sport = p->dport;
	p->dport = service->port;
	return true;
}

#endif
