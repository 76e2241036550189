/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The least load for its weight, the first of equals: lc, wlc, sed and nq, each with a
 * measure of its own; fo and ovf take all loads for the same, so that the greatest weight
 * wins. Fractions are compared by cross multiplication, as in the kernel.
 */
#ifndef XLVS_SCHEDULE_LEAST_H
#define XLVS_SCHEDULE_LEAST_H

#include "choice.h"

/* Members looked at in one step: a step costs as much as two or three of them. */
#define LEAST_BATCH 8

struct least {
	__u64 load;
	__s64 weight;
	__u32 dest;
};

/*
 * Less load for its weight than the best so far? True: it is idle, which nq asks for no
 * more than. By arithmetic, for each branch doubles what the verifier has to walk.
 */
static __always_inline bool least_consider(const struct measure *m, struct least *best,
					   const struct xlvs_member *member)
{
	__u32 dest = member->dest;
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &dest);
	__s64 weight = member->weight;
	__u64 cost;

	if (weight <= 0 || !load || load->flags & m->unable)
		return false;
	if ((__u64)load->active * m->overflow > (__u64)weight)
		return false;
	cost = (__u64)load->active * m->active + (load->inactive & m->inactive) + m->one_more;
	weight = (weight & m->weight) | m->no_weight;
	if (best->load * weight > cost * best->weight) {
		best->dest = dest;
		best->load = cost;
		best->weight = weight;
	}
	if (likely(load->active | m->not_idle))
		return false;
	best->dest = dest;
	return true;
}

static long least_step(__u32 step, struct turn *turn)
{
	struct choice *c = turn->c;
	struct least best = { c->best_load, c->best_weight, c->dest };
	__u32 position = step * LEAST_BATCH, end = position + LEAST_BATCH;
	const struct measure *m = &c->measure; /* not copied: 6.1 counts the stack in 32s */
	bool found = false;

	if (end > c->count)
		end = c->count;
#pragma unroll
	for (int i = 0; i < LEAST_BATCH; i++, position++) {
		struct xlvs_member *member = member_at(c, position);

		if (found || position >= end || !member)
			break;
		found = least_consider(m, &best, member);
	}
	c->dest = best.dest;
	c->best_load = best.load;
	c->best_weight = best.weight;
	return found;
}

static __always_inline void schedule_least(struct turn *turn)
{
	struct choice *c = turn->c;
	struct measure *m = &c->measure;
	bool delay = c->scheduler == XLVS_SED || c->scheduler == XLVS_NQ;
	bool heaviest = c->scheduler == XLVS_FO || c->scheduler == XLVS_OVF;
	bool plain = c->scheduler == XLVS_LC;

	/* sed and nq: the delay that one more connection would see. */
	m->active = heaviest ? 0 : delay ? 1 : ACTIVE_LOAD;
	m->inactive = heaviest || delay ? 0 : ~0;
	m->one_more = heaviest || delay;
	m->weight = plain ? 0 : ~0;
	m->no_weight = plain;
	m->overflow = c->scheduler == XLVS_OVF;
	m->not_idle = c->scheduler != XLVS_NQ;
	m->unable = c->thresholds ? XLVS_LOAD_OVERLOADED : 0;
	c->best_load = ~0u; /* infinite: anybody has less */
	c->best_weight = 0;
	bpf_loop(c->count / LEAST_BATCH + 1, least_step, turn, 0);
}

#endif
