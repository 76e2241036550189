/* SPDX-License-Identifier: GPL-2.0-only */
/* The program of packets that belong to no connection: found a service, admitted, answered. */
#ifndef XLVS_STRANGER_H
#define XLVS_STRANGER_H

#include "defence.h"
#include "error.h"
#include "expect.h"
#include "guard.h"
#include "hop.h"
#include "leave.h"
#include "caller.h"
#include "new.h"
#include "sip.h"

/* Whether the kernel would route the packet to another machine. */
static __always_inline bool routed_elsewhere(struct xdp_md *ctx, const struct packet *p,
					     struct xlvs_scratch *notes)
{
	long answer = route_lookup(ctx, ctx->ingress_ifindex, p->family, p->saddr, p->daddr, 0,
				   &notes->fib);

	return answer == BPF_FIB_LKUP_RET_SUCCESS || answer == BPF_FIB_LKUP_RET_NO_NEIGH;
}

/* What only the packet itself can tell, for a service that asks. */
static __always_inline void read_on(struct xdp_md *ctx, const struct packet *p,
				    const struct xlvs_service *service, struct xlvs_scratch *notes,
				    const struct xlvs_settings *set)
{
	notes->foreign =
		set->sysctl.cache_bypass && service->fwmark && routed_elsewhere(ctx, p, notes);
	notes->engine.length = 0;
	notes->sequence = 0;
	if (p->protocol == IPPROTO_TCP && !notes->about_error &&
	    !bpf_xdp_load_bytes(ctx, p->l4 + 4, &notes->sequence, sizeof(notes->sequence)))
		notes->sequence = bpf_ntohl(notes->sequence);
	if (service->engine)
		sip_call_id(ctx, p, notes, set);
}

/* A packet that no service schedules: the kernel's, unless tcp_drop_entry says that it is nobody's. */
static __always_inline int leave_unscheduled(const struct packet *p,
					     const struct xlvs_service *service,
					     const struct xlvs_scratch *notes,
					     const struct xlvs_settings *set)
{
	if (unlikely(set->sysctl.tcp_drop_entry) && p->protocol == IPPROTO_TCP && service &&
	    !notes->about_error && !starts_connection(p, set) && !stands_in(p, service))
		return drop_as(XLVS_DROP_STRAY_TCP);
	return pass_as(XLVS_PASS_NO_CONNECTION);
}

/* A packet of no service. */
static __always_inline int leave_unserved(struct xdp_md *ctx, const struct packet *p,
					  const struct xlvs_scratch *notes,
					  const struct xlvs_settings *set)
{
	if (notes->about_error)
		return pass_as(XLVS_NOT_OURS);
	return is_unwanted(p, set) ? drop_as(XLVS_DROP_STRAY_UDP) : not_ours(ctx, set);
}

static __always_inline int handle_new(struct xdp_md *ctx, struct xlvs_scratch *notes,
				      struct xlvs_settings *set)
{
	struct packet *p = &notes->packet;
	__u32 row = service_resolve(p, notes->service, set, &notes->mark);
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &row);
	enum xlvs_outcome refused = XLVS_FORWARDED;
	__u32 next = XLVS_PROG_KNOWN;

	if (unlikely(set->expected) && expectation_met(p, notes, set)) {
		bpf_tail_call(ctx, &programs, XLVS_PROG_KNOWN);
		return drop_as(XLVS_DROP_RACE);
	}
	notes->caller = 0;
	if (unlikely(service && service->synproxy) && is_proxied(p, service, row, notes, set)) {
		notes->service = row;
		bpf_tail_call(ctx, &programs, XLVS_PROG_SYNPROXY);
		return drop_as(XLVS_DROP_RACE);
	}
	if (service)
		refused = defended(service, row);
	if (unlikely(refused))
		return drop_as(refused);
	if (service)
		read_on(ctx, p, service, notes, set);
	else if (!call_turned_round(ctx, p, notes, set, &row))
		return leave_unserved(ctx, p, notes, set);
	switch (admit(row, false)) {
	case ADMIT_NO_CONNECTION:
		return leave_unscheduled(p, service, notes, set);
	case ADMIT_AGAIN:
		notes->again = flow_word(p);
		break;
	case ADMIT_NO_DESTINATION:
		if (notes->about_error) /* errors are not answered by errors */
			return drop_as(XLVS_DROP_NO_DESTINATION);
		/* In another's name the kernel sends no error over IPv4 (ip_route_output). */
		if (service && service->fwmark && p->family == XLVS_IPV4 &&
		    routed_elsewhere(ctx, p, notes))
			return drop_as(XLVS_DROP_NO_DESTINATION);
		return refuse(ctx, p, p->daddr, NOBODY, XLVS_DROP_NO_DESTINATION, 0);
	case ADMIT_NO_DATA:
		return drop_as(XLVS_DROP_NO_DATA);
	case ADMIT_UNLUCKY:
		return drop_as(XLVS_DROP_UNLUCKY);
	case ADMIT_FULL:
		return drop_as(XLVS_DROP_TABLE_FULL);
	case ADMIT_DRY:
		return drop_as(XLVS_DROP_NO_LOCAL);
	case ADMIT_LATER:
		return drop_as(XLVS_DROP_MIGRATING);
	case ADMITTED_ONCE:
		if (notes->caller) /* the packet is an answer */
			notes->once = ((notes->once - 1) | XLVS_REF_REPLY) + 1;
		next = XLVS_PROG_SPECIAL;
		break;
	default:
		break;
	}
	bpf_tail_call(ctx, &programs, next);
	return drop_as(XLVS_DROP_RACE);
}

#endif
