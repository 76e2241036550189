/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every scheduler works with: the service's members in IPVS's list order (the
 * newest first), their weights and loads, and who may be chosen at all.
 */
#ifndef XLVS_SCHEDULE_CHOICE_H
#define XLVS_SCHEDULE_CHOICE_H

#include "../maps.h"
#include "../service.h"

/* What walks are given: the kernel lets bpf_loop pass on nothing but the stack. */
struct turn {
	struct xlvs_service *service;
	struct choice *c;
};

static __always_inline struct xlvs_member *member_at(const struct choice *c, __u32 position)
{
	__u32 row = c->first + position;

	return bpf_map_lookup_elem(&members, &row);
}

/* Whether a destination has reached its upper threshold, and not its lower one again. */
static __always_inline bool overloaded(const struct choice *c, __u32 dest)
{
	struct xlvs_load *load;

	if (likely(!c->thresholds))
		return false;
	load = bpf_map_lookup_elem(&loads, &dest);
	return load && load->flags & XLVS_LOAD_OVERLOADED;
}

/* What lc and its kin go by (ip_vs_dest_conn_overhead): an active one is as heavy as 256. */
#define ACTIVE_LOAD 256

static __always_inline __u64 overhead(const struct xlvs_load *load)
{
	return (__u64)load->active * ACTIVE_LOAD + load->inactive;
}

#endif
