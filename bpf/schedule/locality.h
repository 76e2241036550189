/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Locality: lblc and lblcr, for clusters of caches. Connections to one destination address
 * (of a service by mark: else there is but the VIP) go to the server, or set of servers,
 * that had it before, unless that is overloaded while another is at half its load.
 *
 * An entry of `localities` is never changed in place, save for when it was used last: a
 * new one takes its place, so no reader sees half of one. Its key has the service's mark,
 * which user space sets anew whenever the scheduler begins: that forgets all entries.
 */
#ifndef XLVS_SCHEDULE_LOCALITY_H
#define XLVS_SCHEDULE_LOCALITY_H

#include "least.h"

static __always_inline struct xlvs_locality *locality_find(const struct turn *turn,
							   const __u8 *target, __u8 family,
							   struct xlvs_locality_key *key)
{
	key->service = turn->service->mark;
	set_address(key->address, target, family);
	return bpf_map_lookup_elem(&localities, key);
}

/* A destination as the entry knew it: rows are used again for others. */
static __always_inline struct xlvs_dest *locality_dest(const struct turn *turn,
						       const struct xlvs_locality *entry, __u32 row)
{
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);

	if (!dest || dest->service != (__u32)turn->service->mark ||
	    (__s32)(dest->born - entry->version) > 0)
		return 0;
	return dest;
}

static long half_loaded(__u32 position, struct turn *turn)
{
	struct choice *c = turn->c;
	struct xlvs_member *member = member_at(c, position);
	struct xlvs_load *load;

	if (!member)
		return 1;
	load = bpf_map_lookup_elem(&loads, &member->dest);
	c->relief = load && (__s64)load->active * 2 < member->weight;
	return c->relief;
}

/* More active connections than its weight, while another has fewer than half of its own. */
static __always_inline bool too_busy(struct turn *turn, __u32 row, __s32 weight)
{
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &row);

	if (!load || (__s64)load->active <= weight)
		return false;
	turn->c->relief = false;
	bpf_loop(turn->c->count, half_loaded, turn, 0);
	return turn->c->relief;
}

/* The least loaded of all, as wlc has it. */
static __always_inline void choose_afresh(struct turn *turn)
{
	turn->c->dest = NOBODY;
	schedule_least(turn);
}

/* Another CPU may be faster: what it stored, or the timer took away, stays so. */
static __always_inline void locality_store(const struct turn *turn,
					   const struct xlvs_locality_key *key,
					   struct xlvs_locality *entry, bool known)
{
	struct xlvs_settings *set = settings_get();
	__u64 flags = known ? BPF_EXIST : BPF_NOEXIST;

	if (!set)
		return;
	entry->used = now();
	entry->version = set->rules_version;
	if (!bpf_map_update_elem(&localities, key, entry, flags) && !known)
		__sync_fetch_and_add(&turn->service->localities, 1);
}

static __always_inline void schedule_lblc(struct turn *turn, const __u8 *target, __u8 family)
{
	struct choice *c = turn->c;
	struct xlvs_locality_key key = {};
	struct xlvs_locality *known = locality_find(turn, target, family, &key),
			     *entry = &c->locality;
	struct xlvs_dest *dest;
	__u32 row = NOBODY;

	if (known) {
		known->used = now();
		row = known->dests[0];
		dest = locality_dest(turn, known, row);
		if (dest && dest->flags & XLVS_DEST_AVAILABLE && dest->weight > 0 &&
		    !too_busy(turn, row, dest->weight)) {
			c->dest = row;
			return;
		}
	}
	choose_afresh(turn);
	if (c->dest == NOBODY || (known && c->dest == row && dest))
		return;
	entry->dests[0] = c->dest;
	entry->count = 1;
	locality_store(turn, &key, entry, known);
}

/* One step through the set, the newest first: less load for its weight than the best so far? */
static long set_least(__u32 step, struct turn *turn)
{
	struct choice *c = turn->c;
	__u32 row = c->locality.dests[(c->locality.count - 1 - step) % XLVS_LOCALITY_DESTS];
	struct xlvs_dest *dest = locality_dest(turn, &c->locality, row);
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &row);
	__u64 cost;

	if (!dest || !load || !(dest->flags & XLVS_DEST_AVAILABLE) || dest->weight <= 0 ||
	    overloaded(c, row))
		return 0;
	cost = overhead(load);
	if (c->dest == NOBODY || c->best_load * dest->weight > cost * c->best_weight) {
		c->dest = row;
		c->best_load = cost;
		c->best_weight = dest->weight;
	}
	return 0;
}

/* The same, for the most load; those in the trash as well. */
static long set_most(__u32 step, struct turn *turn)
{
	struct choice *c = turn->c;
	__u32 row = c->locality.dests[(c->locality.count - 1 - step) % XLVS_LOCALITY_DESTS];
	struct xlvs_dest *dest = locality_dest(turn, &c->locality, row);
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &row);
	__u64 cost;

	if (!dest || !load || dest->weight <= 0)
		return 0;
	cost = overhead(load);
	if (c->leaving == NOBODY || c->best_load * dest->weight < cost * c->best_weight) {
		c->leaving = row;
		c->best_load = cost;
		c->best_weight = dest->weight;
	}
	return 0;
}

/* One step of set_pack: keep it, unless it leaves or its row is another's now. */
static long pack_step(__u32 position, struct turn *turn)
{
	struct choice *c = turn->c;
	__u32 row = c->locality.dests[position % XLVS_LOCALITY_DESTS];

	if (row == c->leaving || !locality_dest(turn, &c->locality, row))
		return 0;
	c->present |= row == c->dest;
	c->locality.dests[c->kept++ % XLVS_LOCALITY_DESTS] = row;
	return 0;
}

static __always_inline void set_pack(struct turn *turn)
{
	struct choice *c = turn->c;

	c->kept = 0;
	c->present = false;
	bpf_loop(c->locality.count, pack_step, turn, 0);
	c->locality.count = c->kept;
}

/* A set of several that has not changed for so long loses the one with the most load. */
static __always_inline bool set_shrink(struct turn *turn)
{
	struct xlvs_settings *set = settings_get();
	struct choice *c = turn->c;
	__u64 idle = now() - c->locality.modified;

	c->leaving = NOBODY;
	if (!set || c->locality.count < 2 ||
	    (__s64)idle <= (__s64)set->sysctl.lblcr_expiration * set->hz)
		return false;
	bpf_loop(c->locality.count, set_most, turn, 0);
	if (c->leaving == NOBODY)
		return false;
	set_pack(turn);
	c->locality.modified = now();
	c->leaving = NOBODY;
	return true;
}

/* Put the choice into the set; false: it is in already, or there is no room. */
static __always_inline bool set_add(struct turn *turn)
{
	struct choice *c = turn->c;

	c->leaving = NOBODY;
	set_pack(turn);
	if (c->present || c->locality.count >= XLVS_LOCALITY_DESTS)
		return false;
	c->locality.dests[c->locality.count++ % XLVS_LOCALITY_DESTS] = c->dest;
	c->locality.modified = now();
	return true;
}

/* The least loaded of the set, if it may serve: its weight, else 0. */
static __always_inline __s32 set_choose(struct turn *turn)
{
	struct choice *c = turn->c;
	struct xlvs_dest *dest;
	__u32 row;

	bpf_loop(c->locality.count, set_least, turn, 0);
	row = c->dest;
	dest = bpf_map_lookup_elem(&dests, &row);
	return dest ? dest->weight : 0;
}

static __always_inline void schedule_lblcr(struct turn *turn, const __u8 *target, __u8 family)
{
	struct choice *c = turn->c;
	struct xlvs_locality_key key = {};
	struct xlvs_locality *known = locality_find(turn, target, family, &key);
	bool changed = false;
	__s32 weight;

	c->locality.count = 0;
	if (known) {
		known->used = now();
		c->locality = *known;
		weight = set_choose(turn);
		changed = set_shrink(turn);
		if (weight > 0 && !too_busy(turn, c->dest, weight)) {
			if (changed)
				locality_store(turn, &key, &c->locality, known);
			return;
		}
	}
	choose_afresh(turn);
	if (c->dest != NOBODY)
		changed |= set_add(turn);
	if (changed)
		locality_store(turn, &key, &c->locality, known);
}

#endif
