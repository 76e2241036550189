/* SPDX-License-Identifier: GPL-2.0-only */
/* Services: found by the packet's destination; and what is counted for them. */
#ifndef XLVS_SERVICE_H
#define XLVS_SERVICE_H

#include "index.h"
#include "mark.h"

/* The row of the service that a packet is for, or null. */
static __always_inline __u32 *service_find(const struct packet *p)
{
	struct xlvs_service_key key = {};

	set_address(key.address, p->daddr, p->family);
	/* port, protocol and family as one word, for the hash reads words */
	*(__u32 *)&key.port = p->dport | (__u32)p->protocol << 16 | (__u32)p->family << 24;
	return bpf_map_lookup_elem(&service_index, &key);
}

/* What a map of services' keys (service_index, addresses) has there, or null. */
static __always_inline __u32 *find_at(void *map, const __u8 *address, __be16 port, __u8 protocol,
				      __u8 family)
{
	struct xlvs_service_key key = {};

	copy_address(key.address, address);
	*(__u32 *)&key.port = port | (__u32)protocol << 16 | (__u32)family << 24;
	return bpf_map_lookup_elem(map, &key);
}

/* Of XLVS_ADDRESS_*, what this address is to services. */
static __always_inline __u32 address_kind(const __u8 *address, __u8 family)
{
	__u32 *kind = find_at(&addresses, address, 0, 0, family);

	return kind ? *kind : 0;
}

static __always_inline __u32 service_at(const __u8 *address, __be16 port, __u8 protocol,
					__u8 family)
{
	__u32 *row = find_at(&service_index, address, port, protocol, family);

	return row ? *row : NOBODY;
}

/*
 * The row of the real server under NAT that a packet's address and port of origin are, or
 * NOBODY: one of which addresses says all of flags. Protocol 0: of a service by mark.
 */
static __always_inline __u32 server_at_source(const struct packet *p, __u8 protocol, __u32 flags)
{
	__u32 *found = find_at(&addresses, p->saddr, p->sport, protocol, p->family);

	return found && (*found & flags) == flags ? *found >> XLVS_ADDRESS_ROW : NOBODY;
}

#define FTP_PORT      21
#define FTP_DATA_PORT 20
#define PROT_SOCK     1024 /* net.ipv4.ip_unprivileged_port_start */

/*
 * The service that a packet is for, in IPVS's order (ip_vs_service_find): that of its
 * mark, exactly its own (row exact), an FTP service for its data connections, one of every
 * port. The mark is left in *mark.
 */
static __always_inline __u32 service_resolve(const struct packet *p, __u32 exact,
					     const struct xlvs_settings *set, __u32 *mark)
{
	__u16 port = bpf_ntohs(p->dport);
	__u8 by_mark[16] = {};
	__u32 row = NOBODY;

	*mark = set->flags & XLVS_HAS_MARKS ? mark_of(p) : 0;
	if (*mark) {
		*(__u32 *)by_mark = *mark;
		row = service_at(by_mark, 0, 0, p->family);
	}
	if (row == NOBODY)
		row = exact;
	if (row == NOBODY && set->flags & XLVS_HAS_FTP && p->protocol == IPPROTO_TCP &&
	    (port == FTP_DATA_PORT || port >= PROT_SOCK))
		row = service_at(p->daddr, bpf_htons(FTP_PORT), IPPROTO_TCP, p->family);
	if (row == NOBODY && set->flags & XLVS_HAS_PORT0)
		row = service_at(p->daddr, 0, p->protocol, p->family);
	return row;
}

static __always_inline struct xlvs_counters *counters_of(__u32 row)
{
	__u32 mine = bpf_get_smp_processor_id() * XLVS_ROWS + row;

	return bpf_map_lookup_elem(&counters, &mine);
}

/* Count a packet of a connection for its destination and that one's service. */
static __always_inline void account(const struct xlvs_dest *dest, __u32 dest_row, bool reply,
				    __u32 length)
{
	__u32 block = bpf_get_smp_processor_id() * XLVS_ROWS;
	__u32 rows[2] = { block + XLVS_ROW_SERVICE + dest->service,
			  block + XLVS_ROW_DEST + dest_row };

#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct xlvs_counters *counter = bpf_map_lookup_elem(&counters, &rows[i]);

		if (!counter)
			continue;
		if (reply) {
			counter->out_packets++;
			counter->out_bytes += length;
		} else {
			counter->in_packets++;
			counter->in_bytes += length;
		}
	}
}

/* The same for a part of a packet, or several: account() is for the fast path. */
static __always_inline void account_part(const struct xlvs_dest *dest, __u32 dest_row, bool reply,
					 __s64 packets, __s64 bytes)
{
	struct xlvs_counters *both[2] = { counters_of(XLVS_ROW_SERVICE + dest->service),
					  counters_of(XLVS_ROW_DEST + dest_row) };

#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (!both[i])
			continue;
		if (reply) {
			both[i]->out_packets += packets;
			both[i]->out_bytes += bytes;
		} else {
			both[i]->in_packets += packets;
			both[i]->in_bytes += bytes;
		}
	}
}

static __always_inline void account_connection(const struct xlvs_dest *dest, __u32 dest_row)
{
	struct xlvs_counters *service = counters_of(XLVS_ROW_SERVICE + dest->service);
	struct xlvs_counters *own = counters_of(XLVS_ROW_DEST + dest_row);

	if (service)
		service->connections++;
	if (own)
		own->connections++;
}

#endif
