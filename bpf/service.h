/* SPDX-License-Identifier: GPL-2.0-only */
/* Services: found by the packet's destination; and what is counted for them. */
#ifndef XLVS_SERVICE_H
#define XLVS_SERVICE_H

#include "maps.h"
#include "parse.h"

#define NOBODY 0xffffffffu /* no destination */

/* The row of the service that a packet is for, or null. */
static __always_inline __u32 *service_find(const struct packet *p)
{
	struct xlvs_service_key key = {};

	set_address(key.address, p->daddr, p->family);
	/* port, protocol and family as one word, for the hash reads words */
	*(__u32 *)&key.port = p->dport | (__u32)p->protocol << 16 | (__u32)p->family << 24;
	return bpf_map_lookup_elem(&service_index, &key);
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
