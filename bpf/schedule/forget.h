/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What lblc and lblcr forget: as in the kernel, every minute the entries that have not been
 * used for six, as long as a service has too many; every half hour those that were not
 * used for as long as its sysctl says. And whatever is left of a scheduler that ended.
 */
#ifndef XLVS_SCHEDULE_FORGET_H
#define XLVS_SCHEDULE_FORGET_H

#include "../maps.h"

#define FORGET_SECONDS	60	    /* CHECK_EXPIRE_INTERVAL */
#define FORGET_ALL	30	    /* COUNT_FOR_FULL_EXPIRATION */
#define FORGET_IDLE	360	    /* ENTRY_TIMEOUT, seconds */
#define LOCALITIES_MANY (1024 * 16) /* max_size of a table of CONFIG_IP_VS_LBLC_TAB_BITS=10 */

struct forgetting {
	const struct xlvs_settings *set;
	__u32 time;
	bool all;
};

static __always_inline bool locality_stale(const struct forgetting *f,
					   const struct xlvs_service *service,
					   const struct xlvs_locality *entry)
{
	const struct xlvs_sysctl *sysctl = &f->set->sysctl;
	__s32 idle = f->time - entry->used; /* below 0: used since the walk began */
	__s64 most = FORGET_IDLE;

	if (f->all)
		most = service->scheduler == XLVS_LBLC ? sysctl->lblc_expiration
						       : sysctl->lblcr_expiration;
	else if (service->localities <= LOCALITIES_MANY)
		return false;
	return idle >= 0 && idle >= most * f->set->hz;
}

static long forget_step(void *map, const struct xlvs_locality_key *key,
			const struct xlvs_locality *entry, struct forgetting *f)
{
	__u32 row = (__u32)key->service;
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &row);
	bool current = service && service->mark == key->service;

	if (current && !locality_stale(f, service, entry))
		return 0;
	if (!bpf_map_delete_elem(&localities, key) && current)
		__sync_fetch_and_add(&service->localities, -1);
	return 0;
}

static __always_inline void forget_localities(struct xlvs_settings *set)
{
	struct forgetting f = { .set = set, .time = now() };

	if ((__s32)(f.time - set->localities_due) < 0)
		return;
	set->localities_due = f.time + FORGET_SECONDS * set->hz;
	f.all = ++set->localities_round % FORGET_ALL == 0;
	bpf_for_each_map_elem(&localities, forget_step, &f, 0);
}

#endif
