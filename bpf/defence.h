/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The defence against floods: what can belong to nobody is dropped early, where the operator
 * says so; services limit how fast connections begin, and whom they serve.
 */
#ifndef XLVS_DEFENCE_H
#define XLVS_DEFENCE_H

#include "outcome.h"
#include "sctp.h"
#include "service.h"

static __always_inline bool starts_connection(const struct packet *p,
					      const struct xlvs_settings *set)
{
	if (p->protocol == IPPROTO_SCTP)
		return sctp_starts(p, set);
	if (p->protocol != IPPROTO_TCP)
		return true;
	return !(p->tcp & TCP_RST) && (p->tcp & TCP_SYN || set->sysctl.sloppy_tcp);
}

/*
 * Whether TCP of no connection, for exactly this service, can be dropped at once: nobody
 * waits for it (FTP), nobody else could take it for a beginning (a service by mark, cookies of
 * SYNPROXY), and its connection is not on its way from one table to another.
 */
static __always_inline bool is_stray(const struct packet *p, __u32 row,
				     const struct xlvs_settings *set)
{
	struct xlvs_service *service;

	if (likely(!set->sysctl.tcp_drop_entry) || p->protocol != IPPROTO_TCP ||
	    starts_connection(p, set) || set->expected ||
	    set->flags & (XLVS_HAS_MARKS | XLVS_MIGRATING))
		return false;
	service = bpf_map_lookup_elem(&services, &row);
	return service && service->synproxy == XLVS_SYNPROXY_OFF;
}

/* UDP of no service, to an address that services have. */
static __always_inline bool is_unwanted(const struct packet *p, const struct xlvs_settings *set)
{
	return unlikely(set->sysctl.udp_drop_entry) && p->protocol == IPPROTO_UDP &&
	       address_kind(p->daddr, p->family) & XLVS_ADDRESS_VIRTUAL;
}

/* Fragments to such an address that follow no datagram of a connection. */
static __always_inline bool is_debris(const struct packet *p, const struct xlvs_settings *set)
{
	return set->sysctl.frag_drop_entry &&
	       address_kind(p->daddr, p->family) & XLVS_ADDRESS_VIRTUAL;
}

/*
 * Limits are token buckets that hold what one second lets in. A bucket is one word: the time
 * up to which its tokens are spent, 2^32 to the second. So a refusal writes nothing, and a
 * compare-and-swap takes a token, on however many CPUs at once.
 */
#define BUCKET_SECOND (1ull << 32)
#define BUCKET_TRIES  8

static __always_inline __u64 bucket_time(const struct xlvs_settings *set)
{
	return bpf_jiffies64() * (BUCKET_SECOND / set->hz);
}

/* What would be spent after one more token of this size, beyond now; too much: none is left. */
static __always_inline __u64 bucket_after(__u64 spent, __u64 time, __u64 token)
{
	return ((__s64)(spent - time) > 0 ? spent - time : 0) + token;
}

static __always_inline bool bucket_take(__u64 *bucket, __u64 time, __u64 token)
{
#pragma unroll
	for (int i = 0; i < BUCKET_TRIES; i++) {
		__u64 spent = READ_ONCE(*bucket), after = bucket_after(spent, time, token);

		if (after > BUCKET_SECOND)
			return false;
		if (__sync_val_compare_and_swap(bucket, spent, time + after) == spent)
			return true;
	}
	/* So many others took theirs in between: one in advance, which later ones pay. */
	__sync_fetch_and_add(bucket, token);
	return true;
}

/* The bucket of the client's address, or of its IPv6 network of 64 bits, at that service. */
static __always_inline bool source_take(const struct packet *p, __u32 row, __u64 time, __u32 limit)
{
	struct xlvs_source source = { .service = row, .family = p->family };
	__u64 token = BUCKET_SECOND / limit, first = time + token, *bucket;

	__builtin_memcpy(source.network, p->saddr, sizeof(source.network));
	bucket = bpf_map_lookup_elem(&sources, &source);
	if (!bucket) {
		if (!bpf_map_update_elem(&sources, &source, &first, BPF_NOEXIST))
			return true;
		bucket = bpf_map_lookup_elem(&sources, &source);
	}
	return !bucket || bucket_take(bucket, time, token);
}

/* A new connection: XLVS_FORWARDED, or which limit it is over. One client alone uses up no service. */
static __always_inline enum xlvs_outcome limit_connection(const struct packet *p, __u32 row,
							  struct xlvs_service *service,
							  const struct xlvs_settings *set)
{
	__u32 limit = service->syn_limit, source_limit = service->source_limit;
	__u64 time = bucket_time(set), token = limit ? BUCKET_SECOND / limit : 0;
	struct xlvs_counters *counter = counters_of(XLVS_ROW_SERVICE + row);

	/* Asked first, for that is cheap: a flood of many sources writes nothing. */
	if (limit && bucket_after(READ_ONCE(service->syn_bucket), time, token) > BUCKET_SECOND)
		goto over;
	if (source_limit && !source_take(p, row, time, source_limit)) {
		if (counter)
			counter->over_source_limit++;
		return XLVS_DROP_SOURCE_LIMIT;
	}
	if (!limit || bucket_take(&service->syn_bucket, time, token))
		return XLVS_FORWARDED;
over:
	if (counter)
		counter->over_limit++;
	return XLVS_DROP_SERVICE_LIMIT;
}

/* What the longest prefix says that the service's lists have of this client. */
static __always_inline bool is_denied(const struct packet *p, __u32 row)
{
	struct xlvs_client_prefix key = { .service = row };
	struct xlvs_client *client;

	key.bits = p->family == XLVS_IPV4 ? 64 : 160;
	copy_address(key.address, p->saddr);
	client = bpf_map_lookup_elem(&clients, &key);
	if (!client)
		return false;
	__sync_fetch_and_add(&client->packets, 1);
	return client->verdict != XLVS_CLIENT_ALLOW;
}

/* Tells flows apart well enough to know a packet that comes round again; never 0. */
static __always_inline __u32 flow_word(const struct packet *p)
{
	return (ports_of(&p->sport) ^ *(const __u32 *)p->saddr) | 1;
}

/*
 * What the defence of the service in that row has against the packet of no connection in the
 * CPU's scratch: an enum xlvs_outcome, XLVS_FORWARDED for nothing. A global function: its
 * keys are not on the stack of those who ask.
 */
__noinline int defend(__u32 row)
{
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &row);
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();
	const struct packet *p;
	__u32 again;

	if (!service || !set || !notes)
		return XLVS_FORWARDED;
	p = &notes->packet;
	again = notes->again;
	notes->again = 0;
	/* It has been asked about, and has lost a race since. */
	if (unlikely(again == flow_word(p)))
		return XLVS_FORWARDED;
	if (service->flags & XLVS_SERVICE_LISTED && is_denied(p, row))
		return XLVS_DROP_DENIED;
	/* While tables are replaced, what looks new may have a connection already. */
	if (!(service->syn_limit | service->source_limit) || !starts_connection(p, set) ||
	    set->flags & XLVS_MIGRATING)
		return XLVS_FORWARDED;
	return limit_connection(p, row, service, set);
}

/* The same, for services that have any. */
static __always_inline enum xlvs_outcome defended(const struct xlvs_service *service, __u32 row)
{
	if (likely(!(service->flags & XLVS_SERVICE_LISTED) &&
		   !(service->syn_limit | service->source_limit)))
		return XLVS_FORWARDED;
	return defend(row);
}

/*
 * The same for SYNPROXY, in two parts, enum xlvs_outcome: who is denied gets no cookie, but
 * only who brings one back counts for the limits.
 */
__noinline int defend_cookie(__u32 row, __u32 brought_back)
{
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &row);
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();

	if (!service || !set || !notes)
		return XLVS_FORWARDED;
	if (!brought_back)
		return is_denied(&notes->packet, row) ? XLVS_DROP_DENIED : XLVS_FORWARDED;
	return limit_connection(&notes->packet, row, service, set);
}

/*
 * Whether the packet in the scratch, of a connection to that destination, is from a client that
 * is denied by now: of services whose lists are for every packet.
 */
__noinline int denied_by_now(__u32 dest_row)
{
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &dest_row);
	struct xlvs_scratch *notes = scratch_get();
	struct xlvs_service *service;
	__u32 row;

	if (!dest || !notes)
		return false;
	row = dest->service;
	service = bpf_map_lookup_elem(&services, &row);
	return service && service->flags & XLVS_SERVICE_LISTED_ALWAYS &&
	       is_denied(&notes->packet, row);
}

#endif
