/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One after the other: rr and wrr. They keep their place in service.mark and move it by
 * compare-and-swap: no lock, and two CPUs at once get two successive choices.
 */
#ifndef XLVS_SCHEDULE_ROUND_H
#define XLVS_SCHEDULE_ROUND_H

#include "choice.h"

#define MARK_RETRIES 8
/* Rounds of wrr for one choice: where all that weigh more are overloaded, one for each weight. */
#define WRR_ROUNDS 131072

static __always_inline bool heavy_enough(const struct choice *c, const struct xlvs_member *member,
					 __s32 floor)
{
	return member->weight >= floor && !overloaded(c, member->dest);
}

/* One step of a walk that stops at the first member of weight floor or more. */
static long find_weight(__u32 step, struct turn *turn)
{
	struct choice *c = turn->c;
	struct xlvs_member *member = member_at(c, c->position);

	if (!member)
		return 1;
	if (heavy_enough(c, member, c->floor)) {
		c->dest = member->dest;
		c->at = c->position;
		return 1;
	}
	c->position++;
	return 0;
}

/* The first member at positions [from, to) of weight floor or more. */
static __always_inline bool choose_from(struct turn *turn, __u32 from, __u32 to, __s32 floor)
{
	struct choice *c = turn->c;
	struct xlvs_member *member;

	if (from >= to)
		return false;
	c->dest = NOBODY;
	c->floor = floor;
	c->position = from;
	/* The next one mostly does: no loop for it. */
	member = member_at(c, from);
	if (member && heavy_enough(c, member, floor)) {
		c->dest = member->dest;
		c->at = from;
		return true;
	}
	bpf_loop(to - from, find_weight, turn, 0);
	return c->dest != NOBODY;
}

static __always_inline bool mark_move(struct xlvs_service *service, __u64 old, __u32 place,
				      __s32 weight)
{
	__u64 next = place | (__u64)(__u32)weight << 32;

	return __sync_val_compare_and_swap(&service->mark, old, next) == old;
}

/* The next one after the last choice that has a weight. */
static long rr_try(__u32 attempt, struct turn *turn)
{
	__u64 mark = READ_ONCE(turn->service->mark);
	struct choice *c = turn->c;
	__u32 after = (__u32)mark;

	if (after > c->count)
		after = 0;
	if (!choose_from(turn, after, c->count, 1) && !choose_from(turn, 0, after, 1))
		return 1;
	return mark_move(turn->service, mark, c->at + 1, 0);
}

static __always_inline void schedule_rr(struct turn *turn)
{
	bpf_loop(MARK_RETRIES, rr_try, turn, 0);
}

static long wrr_traverse(__u32 step, struct turn *turn)
{
	struct choice *c = turn->c;
	struct wrr_walk *w = &c->wrr;

	if (choose_from(turn, w->after, w->until, w->weight))
		return 1;
	if (w->stopping) { /* went round once more, up to where the walk began */
		w->place = w->last;
		return 1;
	}
	w->after = 0;
	w->weight -= w->step;
	if (w->weight <= 0) {
		w->weight = w->max;
		if (w->last_pass || !w->last)
			return 1;
		w->restarted = true;
	}
	w->last_pass = w->weight <= w->step;
	if (w->last_pass && w->restarted && w->last) {
		w->stopping = true;
		w->until = w->last;
	}
	return 0;
}

static long wrr_try(__u32 attempt, struct turn *turn)
{
	struct xlvs_service *service = turn->service;
	__u64 mark = READ_ONCE(service->mark);
	struct choice *c = turn->c;
	struct wrr_walk *w = &c->wrr;

	w->last = (__u32)mark <= c->count ? (__u32)mark : 0;
	w->weight = (__s32)(mark >> 32);
	w->step = service->wrr_step;
	w->max = service->wrr_max;
	/* Another scheduler's place, or one from before the weights changed. */
	if (w->weight <= 0 || w->weight > w->max)
		w->weight = w->max;
	w->after = w->last;
	w->until = c->count;
	w->place = 0;
	w->last_pass = w->restarted = w->stopping = false;
	bpf_loop(WRR_ROUNDS, wrr_traverse, turn, 0);
	if (c->dest != NOBODY)
		w->place = c->at + 1;
	return mark_move(service, mark, w->place, w->weight);
}

/*
 * Weighted round robin: rounds that ask for less and less weight, from the greatest
 * down to 1 in steps of the greatest common divisor.
 */
static __always_inline void schedule_wrr(struct turn *turn)
{
	if (turn->service->wrr_max)
		bpf_loop(MARK_RETRIES, wrr_try, turn, 0);
}

#endif
