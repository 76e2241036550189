/* SPDX-License-Identifier: GPL-2.0-only */
/* Whether a service's clients are to be answered by cookies just now. */
#ifndef XLVS_GUARD_H
#define XLVS_GUARD_H

#include "service.h"

#define GUARD_SECONDS 10  /* cookies are sent on for, after SYNs came too fast */
#define SYN_BATCH     16  /* counted on each CPU before all of them are told ... */
#define BATCHED_RATE  256 /* ... where that does not matter */

static __always_inline bool is_guarded(const struct xlvs_service *service, __u32 time,
				       const struct xlvs_settings *set)
{
	__u32 until = READ_ONCE(service->guarded_until);

	if (service->synproxy != XLVS_SYNPROXY_AUTO)
		return service->synproxy;
	return until && until - time - 1 < GUARD_SECONDS * set->hz;
}

/* The number of a second, about: by shifting, as cookie_period. */
static __always_inline __u32 second_of(__u32 time, const struct xlvs_settings *set)
{
	return time >> (set->hz >= 1000 ? 10 : set->hz >= 250 ? 8 : 7);
}

/* SYNs of the second that runs, with so many more. */
static __always_inline __u32 count_syns(struct xlvs_service *service, __u32 time, __u32 more,
					const struct xlvs_settings *set)
{
	__u32 word = READ_ONCE(service->syns), first = second_of(time, set) << XLVS_SYNS_BITS;

	if ((word ^ first) >> XLVS_SYNS_BITS) {
		if (__sync_val_compare_and_swap(&service->syns, word, first | more) == word)
			return more;
	}
	return (__sync_fetch_and_add(&service->syns, more) + more) & ((1 << XLVS_SYNS_BITS) - 1);
}

/*
 * Whether a SYN for the service in that row is to be answered by a cookie. At need (auto):
 * from when the SYNs of a second reached sysctl synproxy_rate, until they have been fewer
 * than half of that for a while.
 */
static __always_inline bool guards(struct xlvs_service *service, __u32 row,
				   const struct xlvs_settings *set)
{
	__u32 rate = set->sysctl.synproxy_rate, time = now();
	__u32 batch = rate < BATCHED_RATE ? 1 : SYN_BATCH, syns;
	struct xlvs_counters *mine;
	bool guarded = is_guarded(service, time, set);

	if (service->synproxy == XLVS_SYNPROXY_ALWAYS)
		return true;
	mine = counters_of(XLVS_ROW_SERVICE + row);
	if (!mine || ++mine->syns < batch)
		return guarded;
	mine->syns = 0;
	syns = count_syns(service, time, batch, set);
	if (syns < (guarded ? rate / 2 : rate))
		return guarded;
	WRITE_ONCE(service->guarded_until, (time + GUARD_SECONDS * set->hz) | 1);
	return true;
}

static __always_inline bool is_opening_syn(const struct packet *p)
{
	return (p->tcp & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)) == TCP_SYN;
}

/*
 * Whether SYNPROXY's program sees to a packet of no connection: to a SYN, if it is to be
 * answered, and to what may bring a cookie back. FTP's connections announce others, and
 * services that stand in for other ports serve but their own: these are left alone.
 */
static __always_inline bool is_proxied(const struct packet *p, struct xlvs_service *service,
				       __u32 row, struct xlvs_scratch *notes,
				       const struct xlvs_settings *set)
{
	bool served = service->flags & XLVS_SERVICE_PERSISTENT || service->fwmark ||
		      p->dport == service->port;

	if (notes->unproxied) {
		notes->unproxied = 0;
		return false;
	}
	if (p->protocol != IPPROTO_TCP || p->tcp & TCP_RST || notes->about_error || !served ||
	    p->dport == bpf_htons(FTP_PORT) || p->sport == bpf_htons(FTP_DATA_PORT))
		return false;
	return !is_opening_syn(p) || guards(service, row, set);
}

#endif
