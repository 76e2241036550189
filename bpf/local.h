/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Local addresses (LIP): FULLNAT speaks to a real server from one of the service's own, and
 * the port there is what the answers are known by. The index is the allocator: whoever
 * inserts the key of the answers first has the port, for this real server alone. So one port
 * serves as many real servers as there are, and no two connections ever meet.
 *
 * Addresses go in turn. Ports are tried in an order that is another for each flow, begins
 * anywhere and meets every port of the range once; who has tried enough of them goes on to
 * the next address.
 */
#ifndef XLVS_LOCAL_H
#define XLVS_LOCAL_H

#include "conn.h"

#define LOCAL_ADDRESSES 4   /* looked at for one connection */
#define LOCAL_TRIES	128 /* ports of each: nine tenths taken, all are with a chance of 1e-6 */
#define LOCAL_TRIES_DRY 16  /* of each, while the pool is dry: a flood must not cost much */
#define LAST_PORT	65535
#define SEQUENCE_CLOCK	6 /* 64 ns a step, as in the kernel (net/core/secure_seq.c) */

/* Primes above any range of ports: steps of so many visit each of them. */
static const __u32 port_strides[8] = { 65537, 65539, 65543, 65551, 65557, 65563, 65579, 65581 };

static long local_try(__u32 attempt, void *unused)
{
	struct xlvs_scratch *notes = scratch_get();
	struct local_walk *walk;
	struct xlvs_key6 *key;
	long result;

	if (!notes)
		return 1;
	walk = &notes->local;
	key = &notes->other;
	key->dport = bpf_htons(walk->low + walk->at);
	walk->at += walk->stride;
	if (walk->at >= walk->range)
		walk->at -= walk->range;
	if (index_find(key, walk->family))
		return 0;
	result = index_insert(key, walk->family, walk->ref, BPF_NOEXIST);
	walk->found = !result;
	/* Another CPU's, or its bucket is busy: the next one will do. */
	return result != -EEXIST && !is_transient(result);
}

/* The order in which this flow tries ports. An SCTP one keeps its own where it can (relay.h). */
static __always_inline void local_begin(const struct xlvs_conn *conn, struct local_walk *walk,
					const struct xlvs_key6 *request,
					const struct xlvs_settings *set)
{
	__u32 hash = tuple_hash(request, set->hash_seed), port = bpf_ntohs(conn->cport);

	walk->low = set->sysctl.local_port_low;
	walk->range = set->sysctl.local_port_high - walk->low + 1;
	if ((__u32)set->sysctl.local_port_high > LAST_PORT || walk->range > LAST_PORT)
		walk->range = 0;
	if (!walk->range)
		return;
	walk->at = hash % walk->range;
	walk->stride = port_strides[hash >> 29] % walk->range;
	if (conn->protocol == IPPROTO_SCTP && port - walk->low < walk->range)
		walk->at = port - walk->low;
}

/*
 * Give a filled, claimed slot a local address and port, by the key of its answers. False
 * where no port was found.
 */
static __always_inline bool local_claim(struct xlvs_conn *conn, __u32 slot, __u32 service_row,
					struct xlvs_scratch *notes, const struct xlvs_settings *set)
{
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &service_row);
	struct local_walk *walk = &notes->local;
	__u32 tries = LOCAL_TRIES, first, count, row, found;
	struct xlvs_local *local;
	__u64 pool;
	long tried;

	if (!service)
		return false;
	pool = READ_ONCE(service->locals[conn->server_family == XLVS_IPV6]);
	first = (__u32)pool;
	count = pool >> 32;
	tuple_of_request(conn, &notes->other);
	local_begin(conn, walk, &notes->other, set);
	if (!count || !walk->range)
		return false;
	if (unlikely(walk->dry == now()))
		tries = LOCAL_TRIES_DRY;
	if (tries > walk->range)
		tries = walk->range;
	walk->found = 0;
	walk->ref = slot | XLVS_REF_REPLY;
	walk->family = conn->server_family;
	tuple_of_reply(conn, &notes->other);
	for (__u32 i = 0; i < LOCAL_ADDRESSES; i++) {
		if (i >= count)
			break;
		row = first + walk->turn++ % count;
		local = bpf_map_lookup_elem(&locals, &row);
		if (!local)
			break;
		copy_address(notes->other.daddr, local->address);
		tried = bpf_loop(tries, local_try, 0, 0);
		found = READ_ONCE(walk->found);
		if (tried > found)
			__sync_fetch_and_add(&local->conflicts, tried - found);
		if (found) {
			walk->dry = 0;
			copy_address(conn->laddr, notes->other.daddr);
			conn->lport = notes->other.dport;
			return true;
		}
	}
	walk->dry = now();
	return false;
}

/*
 * The first sequence number of a connection as its real server sees it (RFC 6528): the clock
 * makes it climb, so that a server which remembers an older connection of that local port
 * believes it. Nobody but real servers sees it, so the hash need not withstand more.
 */
static __always_inline __u32 initial_sequence(const struct xlvs_conn *conn,
					      const struct xlvs_settings *set)
{
	__u32 ports[1] = { (__u32)conn->lport << 16 | conn->dport };
	__u32 hash = hash_words((const __u32 *)conn->laddr, 4, set->hash_seed);

	hash = hash_words((const __u32 *)conn->daddr, 4, hash);
	return hash_words(ports, 1, hash) + (__u32)(bpf_ktime_get_ns() >> SEQUENCE_CLOCK);
}

#endif
