/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Schedulers: which destination a new connection gets. Each is one function over
 * the service's members, which lie in IPVS's own list order (the newest first), and
 * chooses what the kernel's scheduler of that name would. User space prepares what
 * changes only with the rules (wrr's step and maximum, sh's table).
 *
 * rr and wrr keep their place in service.mark and move it by compare-and-swap: no
 * lock, and two CPUs at once get two successive choices.
 */
#ifndef XLVS_SCHEDULE_H
#define XLVS_SCHEDULE_H

#include "conn.h"
#include "service.h"

#define MARK_RETRIES 8
/* Members looked at for one choice: the verifier's budget, not a limit of services. */
#define SCAN_MEMBERS 65536

struct choice {
	__u32 first; /* row of the first member */
	__u32 count;
	__u32 dest;	/* the answer: row of dests, or NOBODY */
	__u32 at;	/* its position */
	__u32 position; /* of the walk */
	__s32 floor;	/* least weight that will do */
	__u64 best_load;
	__s32 best_weight;
};

static __always_inline struct xlvs_member *member_at(const struct choice *c, __u32 position)
{
	__u32 row = c->first + position;

	return bpf_map_lookup_elem(&members, &row);
}

/* One step of a walk that stops at the first member of weight floor or more. */
static long find_weight(__u32 step, struct choice *c)
{
	struct xlvs_member *member = member_at(c, c->position);

	if (!member)
		return 1;
	if (member->weight >= c->floor) {
		c->dest = member->dest;
		c->at = c->position;
		return 1;
	}
	c->position++;
	return 0;
}

/* The first member at positions [from, to) of weight floor or more. */
static __always_inline bool choose_from(struct choice *c, __u32 from, __u32 to, __s32 floor)
{
	struct xlvs_member *member;

	if (from >= to)
		return false;
	c->dest = NOBODY;
	c->floor = floor;
	c->position = from;
	/* The next one mostly does: no loop for it. */
	member = member_at(c, from);
	if (member && member->weight >= floor) {
		c->dest = member->dest;
		c->at = from;
		return true;
	}
	bpf_loop(to - from, find_weight, c, 0);
	return c->dest != NOBODY;
}

static __always_inline bool mark_move(struct xlvs_service *service, __u64 old, __u32 place,
				      __s32 weight)
{
	__u64 next = place | (__u64)(__u32)weight << 32;

	return __sync_val_compare_and_swap(&service->mark, old, next) == old;
}

/* The next one after the last choice that has a weight. */
static __always_inline void schedule_rr(struct xlvs_service *service, struct choice *c)
{
	for (int i = 0; i < MARK_RETRIES; i++) {
		__u64 mark = READ_ONCE(service->mark);
		__u32 after = (__u32)mark;

		if (after > c->count)
			after = 0;
		if (!choose_from(c, after, c->count, 1) && !choose_from(c, 0, after, 1))
			return;
		if (mark_move(service, mark, c->at + 1, 0))
			return;
	}
}

/* One traversal of wrr; see wrr_walk. */
struct wrr {
	struct choice c;
	__u32 last;   /* where the walk began: position + 1, 0 for the head */
	__u32 after;  /* where this traversal begins */
	__s32 weight; /* what it asks for */
	__s32 step;
	__s32 max;
	bool last_pass;
	bool restarted;
	__u32 until; /* where it ends */
	bool stopping;
};

static long wrr_traverse(__u32 step, struct wrr *w)
{
	if (choose_from(&w->c, w->after, w->until, w->weight))
		return 1;
	if (w->stopping) /* went round once more, up to where the walk began */
		return 1;
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

/*
 * Weighted round robin: rounds that ask for less and less weight, from the greatest
 * down to 1 in steps of the greatest common divisor.
 */
static __always_inline void schedule_wrr(struct xlvs_service *service, struct choice *c)
{
	__s32 max = service->wrr_max;

	if (!max)
		return;
	for (int i = 0; i < MARK_RETRIES; i++) {
		__u64 mark = READ_ONCE(service->mark);
		struct wrr w = {
			.c = *c,
			.last = (__u32)mark,
			.weight = (__s32)(mark >> 32),
			.step = service->wrr_step,
			.max = max,
			.until = c->count,
		};

		if (w.last > c->count)
			w.last = 0;
		/* Another scheduler's place, or one from before the weights changed. */
		if (w.weight <= 0 || w.weight > max)
			w.weight = max;
		w.after = w.last;
		w.c.dest = NOBODY;
		bpf_loop(2 * SCAN_MEMBERS, wrr_traverse, &w, 0);
		if (w.c.dest == NOBODY)
			w.c.at = w.last - 1; /* nobody: the place stays */
		if (mark_move(service, mark, w.c.at + 1, w.weight)) {
			*c = w.c;
			return;
		}
	}
}

static __always_inline __u64 overhead(const struct xlvs_load *load)
{
	return ((__u64)load->active << 8) + load->inactive;
}

/* One step of wlc: less load for its weight than the best so far? */
static long wlc_step(__u32 position, struct choice *c)
{
	struct xlvs_member *member = member_at(c, position);
	struct xlvs_load *load;
	__u64 over;

	if (!member)
		return 1;
	if (member->weight <= 0)
		return 0;
	load = bpf_map_lookup_elem(&loads, &member->dest);
	if (!load)
		return 0;
	over = overhead(load);
	if (c->dest == NOBODY || c->best_load * member->weight > over * c->best_weight) {
		c->dest = member->dest;
		c->best_load = over;
		c->best_weight = member->weight;
	}
	return 0;
}

/* Least (active * 256 + inactive) / weight; the first of equals. */
static __always_inline void schedule_wlc(struct choice *c)
{
	bpf_loop(c->count, wlc_step, c, 0);
}

#define SH_TABLE_BITS	8	    /* CONFIG_IP_VS_SH_TAB_BITS of every distribution */
#define GOLDEN_RATIO_32 0x61c88647u /* linux/hash.h: hash_32 must give the same bits */

static __always_inline __u32 address_fold(const __u8 *address, __u8 family)
{
	const __u32 *words = (const __u32 *)address;

	return bpf_ntohl(family == XLVS_IPV4 ? words[0]
					     : words[0] ^ words[1] ^ words[2] ^ words[3]);
}

/* The source address picks a row of the table that user space filled by weight. */
static __always_inline void schedule_sh(const struct xlvs_service *service, const struct packet *p,
					struct choice *c)
{
	__u32 hash = address_fold(p->saddr, p->family) * GOLDEN_RATIO_32 >> (32 - SH_TABLE_BITS);
	__u64 table = service->table;
	__u32 row = (__u32)table + hash;
	struct xlvs_member *member;

	if (hash >= table >> 32)
		return;
	member = bpf_map_lookup_elem(&members, &row);
	if (member && member->weight > 0)
		c->dest = member->dest;
}

/* The destination (row of dests) for a new connection, or NOBODY. */
static __always_inline __u32 schedule(struct xlvs_service *service, const struct packet *p)
{
	__u64 list = READ_ONCE(service->members);
	struct choice c = { .first = (__u32)list, .count = list >> 32, .dest = NOBODY };

	if (!c.count)
		return NOBODY;
	switch (service->scheduler) {
	case XLVS_RR:
		schedule_rr(service, &c);
		break;
	case XLVS_WRR:
		schedule_wrr(service, &c);
		break;
	case XLVS_WLC:
		schedule_wlc(&c);
		break;
	case XLVS_SH:
		schedule_sh(service, p, &c);
		break;
	}
	return c.dest;
}

#endif
