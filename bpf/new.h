/* SPDX-License-Identifier: GPL-2.0-only */
/* A packet of no connection: is it for a service, and who shall serve it? */
#ifndef XLVS_NEW_H
#define XLVS_NEW_H

#include "schedule.h"
#include "service.h"

enum admission {
	ADMITTED, /* a connection exists now */
	ADMIT_NOT_OURS,
	ADMIT_NO_CONNECTION, /* TCP, but not a SYN: no service schedules it */
	ADMIT_NO_DESTINATION,
	ADMIT_FULL,
	ADMIT_AGAIN,
	ADMIT_LATER, /* the table is being migrated */
};

static __always_inline bool starts_connection(const struct packet *p)
{
	return p->protocol != IPPROTO_TCP || (p->tcp & (TCP_SYN | TCP_RST)) == TCP_SYN;
}

/*
 * Make the connection for a packet of the service in that row. own: the client is the
 * director, so that answers go to its stack instead of a next hop.
 */
static __always_inline enum admission admit(const struct packet *p, __u32 service_row,
					    const struct xlvs_settings *set, bool own)
{
	struct xlvs_service *service = bpf_map_lookup_elem(&services, &service_row);
	struct xlvs_dest *dest;
	__u32 row, flags;

	if (!service)
		return ADMIT_NOT_OURS;
	if (!starts_connection(p))
		return set->flags & XLVS_MIGRATING ? ADMIT_LATER : ADMIT_NO_CONNECTION;
	row = schedule(service, p);
	if (row == NOBODY)
		return ADMIT_NO_DESTINATION;
	dest = bpf_map_lookup_elem(&dests, &row);
	if (!dest)
		return ADMIT_NO_DESTINATION;
	flags = dest->forward & XLVS_CONN_METHOD;
	if (dest->flags & XLVS_DEST_LOCAL)
		flags |= XLVS_CONN_LOCAL;
	if (own)
		flags |= XLVS_CONN_OWN;
	switch (conn_create(p, dest, row, flags, set)) {
	case CREATED:
		account_connection(dest, row);
		return ADMITTED;
	case CREATE_AGAIN:
		return ADMIT_AGAIN;
	default:
		return ADMIT_FULL;
	}
}

/*
 * A SYN on a connection in TIME_WAIT or CLOSE is a new client on an old port: IPVS
 * (conn_reuse_mode 1) ends the old connection and schedules afresh.
 */
static __always_inline bool reused_port(const struct packet *p, const struct flow *flow)
{
	__u32 state = flow->conn->state & 0xf;

	return !is_reply(flow) && p->protocol == IPPROTO_TCP && p->tcp & TCP_SYN &&
	       (state == XLVS_TCP_TIME_WAIT || state == XLVS_TCP_CLOSE);
}

#endif
