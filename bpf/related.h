/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IPsec beside its key exchange: AH and ESP between two addresses follow the connection
 * that IKE (UDP, port 500 at both ends) has between them, as in ip_vs_proto_ah_esp.c.
 */
#ifndef XLVS_RELATED_H
#define XLVS_RELATED_H

#include "conn.h"

#define IKE_PORT 500 /* RFC 7296, 2 */

static __always_inline bool is_ipsec(__u8 protocol)
{
	return protocol == IPPROTO_AH || protocol == IPPROTO_ESP;
}

static __always_inline bool related_find(struct packet *p, struct flow *flow)
{
	__u8 protocol = p->protocol;
	bool found;

	p->protocol = IPPROTO_UDP; /* for the moment: there is no stack for another one */
	p->sport = p->dport = bpf_htons(IKE_PORT);
	found = conn_find(p, flow);
	p->protocol = protocol;
	/* Their answers would come to the port 500 of a local address: nobody has claimed that. */
	return found && !has_local(flow->conn->flags);
}

/* The connection of a packet of any transport. */
static __always_inline bool flow_find(struct packet *p, struct flow *flow)
{
	return is_ipsec(p->protocol) ? related_find(p, flow) : conn_find(p, flow);
}

#endif
