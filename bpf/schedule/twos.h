/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The power of two choices: two destinations drawn at random by weight, and of them the
 * one with less load for its weight.
 */
#ifndef XLVS_SCHEDULE_TWOS_H
#define XLVS_SCHEDULE_TWOS_H

#include "choice.h"

static __always_inline struct xlvs_member *twos_candidate(const struct choice *c, __u32 position)
{
	struct xlvs_member *member = member_at(c, position);

	if (!member || member->weight <= 0 || overloaded(c, member->dest))
		return 0;
	return member;
}

static long twos_add(__u32 position, struct turn *turn)
{
	struct choice *c = turn->c;
	struct xlvs_member *member = twos_candidate(c, position);

	if (member)
		c->twos.total += member->weight;
	return 0;
}

static __always_inline void draw_pass(struct draw *draw, const struct xlvs_member *member)
{
	struct xlvs_load *load;

	if (draw->dest != NOBODY)
		return;
	draw->left -= member->weight;
	if (draw->left > 0)
		return;
	load = bpf_map_lookup_elem(&loads, &member->dest);
	draw->load = load ? overhead(load) : 0;
	draw->dest = member->dest;
	draw->weight = member->weight;
}

static long twos_draw(__u32 position, struct turn *turn)
{
	struct choice *c = turn->c;
	struct xlvs_member *member = twos_candidate(c, position);

	if (!member)
		return 0;
	draw_pass(&c->twos.one, member);
	draw_pass(&c->twos.other, member);
	return c->twos.one.dest != NOBODY && c->twos.other.dest != NOBODY;
}

static __always_inline void schedule_twos(struct turn *turn)
{
	struct choice *c = turn->c;
	struct draw *one = &c->twos.one, *other = &c->twos.other;
	__u64 most;

	c->twos.total = 0;
	bpf_loop(c->count, twos_add, turn, 0);
	if (!c->twos.total)
		return;
	/* From 0 to the total inclusive, as in the kernel: the first gets a little more. */
	most = c->twos.total + 1;
	one->left = bpf_get_prandom_u32() % most;
	other->left = bpf_get_prandom_u32() % most;
	one->dest = other->dest = NOBODY;
	bpf_loop(c->count, twos_draw, turn, 0);
	c->dest = one->dest;
	if (other->dest != NOBODY && one->load * other->weight > other->load * one->weight)
		c->dest = other->dest;
}

#endif
