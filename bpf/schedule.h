/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Schedulers: which destination a new connection gets; each chooses what the kernel's
 * scheduler of that name would. User space prepares what changes only with the rules
 * (wrr's step and maximum; sh's, dh's and mh's tables).
 */
#ifndef XLVS_SCHEDULE_H
#define XLVS_SCHEDULE_H

#include "schedule/hashed.h"
#include "schedule/least.h"
#include "schedule/locality.h"
#include "schedule/round.h"
#include "schedule/twos.h"

/*
 * The destination (row of dests) for a new connection, or NOBODY. Global, so that it is
 * verified once, and not at each place that asks.
 */
__noinline __u32 schedule(struct xlvs_service *service, const struct packet *p)
{
	struct xlvs_scratch *notes = scratch_get();
	const __u8 *target;
	struct turn turn;
	struct choice *c;
	__u64 list;

	if (!service || !p || !notes)
		return NOBODY;
	/* The kernel reads the packet that an error quotes, which went the other way (schedule_icmp). */
	target = notes->about_error ? p->saddr : p->daddr;
	c = &notes->choice;
	turn.service = service;
	turn.c = c;
	c->dest = NOBODY;
	list = READ_ONCE(service->members);
	c->first = (__u32)list;
	c->count = list >> 32;
	c->scheduler = service->scheduler;
	c->thresholds = service->flags & XLVS_SERVICE_THRESHOLDS;
	switch (service->scheduler) {
	case XLVS_RR:
		schedule_rr(&turn);
		break;
	case XLVS_WRR:
		schedule_wrr(&turn);
		break;
	case XLVS_LC:
	case XLVS_WLC:
	case XLVS_SED:
	case XLVS_NQ:
	case XLVS_FO:
	case XLVS_OVF:
		schedule_least(&turn);
		break;
	case XLVS_LBLC:
		schedule_lblc(&turn, target, p->family);
		break;
	case XLVS_LBLCR:
		schedule_lblcr(&turn, target, p->family);
		break;
	case XLVS_DH:
	case XLVS_SH:
	case XLVS_MH:
		schedule_hashed(&turn, p, target);
		break;
	case XLVS_TWOS:
		schedule_twos(&turn);
		break;
	}
	return c->dest;
}

#endif
