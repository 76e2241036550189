/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The least of some measure, the first of equals: lc, wlc, sed and nq by connections;
 * fo and ovf by weight. Fractions are compared by cross multiplication, as in the kernel.
 */
#ifndef XLVS_SCHEDULE_LEAST_H
#define XLVS_SCHEDULE_LEAST_H

#include "choice.h"

/* One step of lc, wlc, sed and nq: less load for its weight than the best so far? */
static long least_step(__u32 position, struct turn *turn)
{
	struct choice *c = turn->c;
	struct xlvs_member *member = member_at(c, position);
	bool delay = c->scheduler == XLVS_SED || c->scheduler == XLVS_NQ;
	struct xlvs_load *load;
	__s64 weight;
	__u64 cost;

	if (!member)
		return 1;
	if (member->weight <= 0)
		return 0;
	load = bpf_map_lookup_elem(&loads, &member->dest);
	if (!load || (c->thresholds && load->flags & XLVS_LOAD_OVERLOADED))
		return 0;
	/* sed's and nq's: the delay that one more connection would see. */
	cost = delay ? (__u64)load->active + 1 : overhead(load);
	weight = c->scheduler == XLVS_LC ? 1 : member->weight;
	if (c->dest == NOBODY || c->best_load * weight > cost * c->best_weight) {
		c->dest = member->dest;
		c->best_load = cost;
		c->best_weight = weight;
	}
	if (c->scheduler == XLVS_NQ && !load->active) { /* an idle one, however slow */
		c->dest = member->dest;
		return 1;
	}
	return 0;
}

static __always_inline void schedule_least(struct turn *turn)
{
	bpf_loop(turn->c->count, least_step, turn, 0);
}

/* One step of fo and ovf: more weight than the best so far? */
static long heaviest_step(__u32 position, struct turn *turn)
{
	struct choice *c = turn->c;
	struct xlvs_member *member = member_at(c, position);
	struct xlvs_load *load;

	if (!member)
		return 1;
	if (member->weight <= c->best_weight || overloaded(c, member->dest))
		return 0;
	if (c->scheduler == XLVS_OVF) { /* as many active connections as its weight, and one more */
		load = bpf_map_lookup_elem(&loads, &member->dest);
		if (!load || load->active > (__u32)member->weight)
			return 0;
	}
	c->dest = member->dest;
	c->best_weight = member->weight;
	return 0;
}

static __always_inline void schedule_heaviest(struct turn *turn)
{
	turn->c->best_weight = 0;
	bpf_loop(turn->c->count, heaviest_step, turn, 0);
}

#endif
