/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fragments follow the first of their datagram; and packets behind IPv6 extension headers.
 *
 * IPVS puts datagrams together before it looks at them. Here the first fragment finds (or
 * makes) the connection, and a table of bounded size remembers which, for those that follow.
 * One that comes before its first waits in the helper, which puts it back into the stream.
 */
#ifndef XLVS_FRAGMENT_H
#define XLVS_FRAGMENT_H

#include "event.h"
#include "icmp.h"
#include "new.h"
#include "relay.h"
#include "reuse.h"

#define DATAGRAM_SECONDS 30 /* net.ipv4.ipfrag_time */
/* Two first fragments that differ within this part of a second belong to one datagram. */
#define CONFLICT_PART	     20
#define EARLY_A_SECOND	     4096 /* fragments given to the helper, by each CPU */
#define MOST_DATAGRAM	     65535
#define IPV6_FRAGMENT_HEADER 8

static __always_inline void datagram_key(const struct packet *p, const struct fragment *f,
					 struct xlvs_datagram_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	copy_address(key->saddr, p->saddr);
	copy_address(key->daddr, p->daddr);
	key->id = f->id;
	key->protocol = p->family == XLVS_IPV4 ? p->protocol : 0;
	key->family = p->family;
}

static __always_inline __u32 address_kind(const __u8 *address, __u8 family)
{
	struct xlvs_service_key key = { .family = family };
	__u32 *kind;

	copy_address(key.address, address);
	kind = bpf_map_lookup_elem(&addresses, &key);
	return kind ? *kind : 0;
}

/* Whether fragments between these addresses may be a service's, or its servers' answers. */
static __always_inline bool is_wanted(const struct packet *p, const struct xlvs_settings *set)
{
	return address_kind(p->daddr, p->family) & XLVS_ADDRESS_VIRTUAL ||
	       address_kind(p->saddr, p->family) & XLVS_ADDRESS_REAL ||
	       (set->flags & XLVS_HAS_MARKS && may_be_marked(p));
}

/* What no datagram can consist of (RFC 791, 3.2; RFC 8200, 4.5), nor a TCP header hide in (RFC 1858). */
static __always_inline bool is_possible(const struct packet *p, const struct fragment *f)
{
	__u32 headers = p->length - f->size;

	if (!f->size || f->size > p->length || f->offset + f->size + headers > MOST_DATAGRAM)
		return false;
	return !f->more || !(f->size & 7);
}

static __always_inline bool datagram_young(const struct xlvs_datagram *d,
					   const struct xlvs_settings *set)
{
	return now() - d->seen < DATAGRAM_SECONDS * set->hz;
}

/* Remember whose the datagram is; false where an earlier first fragment says otherwise. */
static __always_inline bool datagram_store(const struct xlvs_datagram_key *key,
					   const struct packet *p, enum xlvs_datagram_kind kind,
					   const struct flow *flow, const struct xlvs_settings *set)
{
	struct xlvs_datagram *old = bpf_map_lookup_elem(&datagrams, key);
	struct xlvs_datagram d = { .kind = kind, .seen = now(), .ports = ports_of(&p->sport) };

	if (flow) {
		d.ref = flow->ref;
		d.generation = flow->generation;
	}
	if (old && old->ports != d.ports && d.seen - old->seen < set->hz / CONFLICT_PART)
		d.kind = XLVS_DATAGRAM_BROKEN;
	bpf_map_update_elem(&datagrams, key, &d, BPF_ANY);
	return d.kind != XLVS_DATAGRAM_BROKEN;
}

/* Tell the helper that what it holds of this datagram may go. */
static __always_inline void call_waiting(const struct xlvs_datagram_key *key,
					 const struct xlvs_settings *set)
{
	if (!bpf_map_lookup_elem(&waiting, key))
		return;
	event_send_key(XLVS_EVENT_FIRST, key, set);
	bpf_map_delete_elem(&waiting, key);
}

static __always_inline bool early_allowed(const struct xlvs_settings *set)
{
	struct xlvs_scratch *notes = scratch_get();
	__u32 second = now() / set->hz;

	if (!notes)
		return false;
	if (notes->early_second != second) {
		notes->early_second = second;
		notes->early_count = 0;
	}
	return notes->early_count++ < EARLY_A_SECOND;
}

static __always_inline bool datagram_flow(const struct xlvs_datagram *d, struct flow *flow)
{
	flow->ref = d->ref;
	flow->generation = d->generation;
	flow->conn = conn_at(d->ref & XLVS_REF_SLOT);
	return flow->conn && conn_in_use(flow->conn) && flow_holds(flow);
}

/* A fragment that is not the first. */
static __always_inline int follow(struct xdp_md *ctx, const struct packet *p,
				  const struct fragment *f, const struct xlvs_datagram_key *key,
				  const struct xlvs_settings *set)
{
	struct relayed r = { .kind = RELAY_LATER, .bytes = f->size };
	struct xlvs_datagram *d = bpf_map_lookup_elem(&datagrams, key);
	struct flow flow;
	__u32 time;

	if (!d || !datagram_young(d, set)) {
		if (!early_allowed(set))
			return drop_as(XLVS_DROP_EARLY_LIMITED);
		time = now();
		bpf_map_update_elem(&waiting, key, &time, BPF_ANY);
		d = bpf_map_lookup_elem(&datagrams, key); /* may have come in between */
		if (!d || !datagram_young(d, set))
			return leave_to_helper(ctx, XLVS_EVENT_EARLY, 0, 0, XLVS_HANDED_EARLY, set);
	}
	if (d->kind == XLVS_DATAGRAM_KERNEL)
		return pass_as(XLVS_NOT_OURS);
	if (d->kind != XLVS_DATAGRAM_FLOW || !datagram_flow(d, &flow))
		return drop_as(XLVS_DROP_FRAGMENT);
	return relay(ctx, p, &flow, &r, set);
}

/* A first fragment's connection, or that of the packet behind extension headers. */
static __always_inline bool find_connection(const struct packet *p, struct flow *flow,
					    const struct xlvs_settings *set, bool *once)
{
	*once = made_for_it(flow);
	if (*once)
		return true;
	if (!conn_find(p, flow))
		return false;
	if (!reused_port(p, flow, set))
		return true;
	conn_end(flow->conn, flow->ref & XLVS_REF_SLOT);
	return false;
}

/* A packet that no connection is known for: to the program that makes one. */
static __always_inline int offer(struct xdp_md *ctx, const struct packet *p, __u32 *service)
{
	struct xlvs_scratch *notes = scratch_get();

	if (!notes)
		return XDP_PASS;
	notes->packet = *p;
	notes->service = service ? *service : NOBODY;
	bpf_tail_call(ctx, &programs, XLVS_PROG_NEW);
	return drop_as(XLVS_DROP_RACE);
}

/* The rest of a datagram that is not ours goes where its first fragment goes. */
static __always_inline int leave_to_kernel(const struct packet *p, const struct fragment *f,
					   const struct xlvs_datagram_key *key,
					   const struct xlvs_settings *set)
{
	if (!is_whole(f)) {
		datagram_store(key, p, XLVS_DATAGRAM_KERNEL, 0, set);
		call_waiting(key, set);
	}
	return pass_as(XLVS_NOT_OURS);
}

/* The first fragment of an ICMP error. */
static __always_inline int lead_error(struct xdp_md *ctx, const struct packet *p,
				      const struct fragment *f, const struct xlvs_datagram_key *key,
				      const struct xlvs_settings *set)
{
	struct relayed r = { .kind = RELAY_ERROR, .packets = 1, .bytes = p->length };
	struct packet about = {};
	struct flow flow;

	if (!icmp_find(ctx, p, &r.quote, &about, &flow))
		return leave_to_kernel(p, f, key, set);
	if (!datagram_store(key, p, XLVS_DATAGRAM_FLOW, &flow, set))
		return drop_as(XLVS_DROP_FRAGMENT);
	call_waiting(key, set);
	return relay(ctx, p, &flow, &r, set);
}

/* A first fragment, or a whole packet behind extension headers. */
static __always_inline int lead(struct xdp_md *ctx, const struct packet *p,
				const struct fragment *f, const struct xlvs_datagram_key *key,
				const struct xlvs_settings *set)
{
	struct relayed r = { .kind = RELAY_WHOLE, .packets = 1, .bytes = p->length };
	struct flow flow;
	__u32 *service;
	bool once;

	if (!find_connection(p, &flow, set, &once)) {
		service = service_find(p);
		if (!service && !(set->flags & XLVS_HAS_OTHERS))
			return leave_to_kernel(p, f, key, set);
		if (!starts_connection(p, set) && !is_whole(f))
			return leave_to_kernel(p, f, key, set);
		return offer(ctx, p, service);
	}
	if (!is_whole(f)) {
		r.kind = RELAY_FIRST;
		if (p->family == XLVS_IPV6) /* as the datagram put together again */
			r.bytes -= IPV6_FRAGMENT_HEADER;
		if (!datagram_store(key, p, XLVS_DATAGRAM_FLOW, &flow, set))
			return drop_as(XLVS_DROP_FRAGMENT);
		call_waiting(key, set);
		if (once) /* it serves the rest of the datagram, too */
			flow.conn->timeout = set->hz;
		once = false;
	}
	return relay(ctx, p, &flow, &r, set);
}

static __always_inline int handle_fragment(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	struct xlvs_datagram_key key = {};
	struct fragment f = {};
	struct packet p = {};
	enum parsed what = parse_xdp(ctx, &p);

	if (what != PARSED_FRAGMENT && what != PARSED_EXTENSION)
		return pass_as(XLVS_NOT_OURS);
	what = walk(ctx, &p, &f);
	if (what == PARSED_EXTENSION)
		return pass_as(XLVS_PASS_EXTENSION);
	if (is_whole(&f)) {
		if (what == PARSED_FLOW)
			return lead(ctx, &p, &f, &key, set);
		if (what == PARSED_PROTOCOL)
			return leave_fast_path(ctx, what, &p);
		return pass_as(XLVS_NOT_OURS);
	}
	if (!is_wanted(&p, set))
		return pass_as(XLVS_NOT_OURS);
	if (what == PARSED_MALFORMED || !is_possible(&p, &f))
		return drop_as(XLVS_DROP_FRAGMENT);
	datagram_key(&p, &f, &key);
	if (what == PARSED_FRAGMENT)
		return follow(ctx, &p, &f, &key, set);
	if (what == PARSED_FLOW)
		return lead(ctx, &p, &f, &key, set);
	if (is_icmp(&p))
		return lead_error(ctx, &p, &f, &key, set);
	return leave_to_kernel(&p, &f, &key, set);
}

#endif
