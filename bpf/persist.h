/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Persistence: a template remembers which destination a client (or its network) got, and
 * new connections of that client hang on it. A template is a connection of its own that
 * no packet finds: its key is of another kind, and names no client port.
 */
#ifndef XLVS_PERSIST_H
#define XLVS_PERSIST_H

#include "create.h"
#include "service.h"

/* A template that is valid no more loses its place and waits for its end (ip_vs_conn.c). */
#define NO_PORT 0xffff

/* The client's network, as wide as the service says. */
static __always_inline void mask_client(__u8 *address, const struct xlvs_service *service)
{
	__u32 *words = (__u32 *)address;
	__s32 bits = service->netmask;

	if (service->family == XLVS_IPV4) {
		words[0] &= bpf_htonl(service->netmask);
		return;
	}
#pragma unroll
	for (int i = 0; i < 4; i++, bits -= 32)
		words[i] &= bits <= 0 ? 0 : bits >= 32 ? ~0u : bpf_htonl(~0u << (32 - bits));
}

/*
 * The key of the template that a packet's connection would hang on: of one port; of all
 * ports of the address for FTP and for services of every port; of all addresses for a
 * service by mark.
 */
static __always_inline void
template_tuple(const struct packet *p, const struct xlvs_service *service, struct xlvs_key6 *tuple)
{
	bool own_port = p->dport == service->port;

	__builtin_memset(tuple, 0, sizeof(*tuple));
	copy_address(tuple->saddr, p->saddr);
	mask_client(tuple->saddr, service);
	tuple->kind = XLVS_KEY_TEMPLATE;
	if (!own_port && service->fwmark) {
		*(__be32 *)tuple->daddr = bpf_htonl(service->fwmark);
		return;
	}
	tuple->protocol = p->protocol;
	copy_address(tuple->daddr, p->daddr);
	if (own_port && service->port != bpf_htons(FTP_PORT))
		tuple->dport = p->dport;
}

/* Whether a template's destination may still be given to new connections. */
static __always_inline bool template_serves(const struct xlvs_conn *template,
					    const struct xlvs_settings *set)
{
	__u32 row = template->dest;
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &row);

	if (!dest || !(dest->flags & XLVS_DEST_AVAILABLE))
		return false;
	return dest->weight || !set->sysctl.expire_quiescent_template;
}

/* Take a template that is valid no more out of the way. */
static __always_inline void template_put_away(struct xlvs_conn *template, const struct birth *birth)
{
	index_remove(&birth->tuple, birth->family, birth->template_slot);
	template->vport = NO_PORT;
	template->dport = NO_PORT;
}

/*
 * The living template under the birth's key, its slot in birth.template_slot; one that
 * cannot serve any more is put out of the way.
 */
static __always_inline struct xlvs_conn *
template_find(struct birth *birth, const struct xlvs_settings *set, struct xlvs_key6 *own)
{
	__u32 *found = index_find(&birth->tuple, birth->family);
	struct xlvs_conn *template;

	if (!found)
		return 0;
	birth->template_slot = *found & XLVS_REF_SLOT;
	template = conn_at(birth->template_slot);
	if (!template || (READ_ONCE(template->phase) & XLVS_PHASE) != XLVS_LIVE)
		return 0;
	tuple_of_request(template, own);
	if (!same_tuple(own, &birth->tuple))
		return 0;
	if (template_serves(template, set))
		return template;
	template_put_away(template, birth);
	return 0;
}

#endif
