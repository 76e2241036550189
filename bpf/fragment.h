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

#include "caller.h"
#include "defence.h"
#include "event.h"
#include "further.h"
#include "icmp_find.h"
#include "leave.h"
#include "new.h"
#include "relay_on.h"
#include "reuse.h"

#define DATAGRAM_SECONDS 30 /* net.ipv4.ipfrag_time */
/* Two first fragments that differ within this part of a second belong to one datagram. */
#define CONFLICT_PART	     20
#define EARLY_A_SECOND	     4096 /* fragments given to the helper, by each CPU */
#define MOST_DATAGRAM	     65535
#define MOST_TCP_HEADER	     60
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

/*
 * Whether a later fragment overlaps the largest TCP header, which the first one must hold: put
 * together, it might bring options in that were not looked at (RFC 3128).
 */
static __always_inline bool hides_options(const struct xlvs_scratch *notes,
					  const struct xlvs_conn *conn)
{
	return notes->fragment.offset < MOST_TCP_HEADER &&
	       has_watched_options(&notes->packet, conn);
}

/* A fragment that is not the first. */
static __always_inline int follow(struct xdp_md *ctx, struct xlvs_scratch *notes,
				  const struct xlvs_datagram_key *key,
				  const struct xlvs_settings *set)
{
	struct xlvs_datagram *d = bpf_map_lookup_elem(&datagrams, key);
	struct flow flow;
	__u32 time;

	if (!d || !datagram_young(d, set)) {
		if (is_debris(&notes->packet, set))
			return drop_as(XLVS_DROP_STRAY_FRAGMENT);
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
	if (!is_reply(&flow) && hides_options(notes, flow.conn))
		return drop_as(XLVS_DROP_FRAGMENT);
	*(__be32 *)&notes->packet.sport = d->ports; /* a tunnel may go by them */
	return relay_on(ctx, notes, &flow, RELAY_LATER, notes->fragment.size, false);
}

/* A first fragment's connection, or that of the packet behind extension headers. */
static __always_inline bool find_connection(struct packet *p, struct flow *flow,
					    const struct xlvs_settings *set, bool *once)
{
	*once = made_for_it(flow);
	if (*once)
		return true;
	if (!flow_find(p, flow))
		return false;
	if (!reused(p, flow, set))
		return true;
	conn_replace(flow);
	return false;
}

/* The rest of a datagram that is not ours goes where its first fragment goes. */
static __always_inline int leave_to_kernel(const struct packet *p, const struct fragment *f,
					   const struct xlvs_datagram_key *key,
					   const struct xlvs_settings *set)
{
	if (!is_whole(f)) {
		if (is_debris(p, set))
			return drop_as(XLVS_DROP_STRAY_FRAGMENT);
		datagram_store(key, p, XLVS_DATAGRAM_KERNEL, 0, set);
		call_waiting(key, set);
	}
	return pass_as(XLVS_NOT_OURS);
}

/* A first fragment's part in the length of the datagram put together again. */
static __always_inline __u32 as_one(const struct packet *p)
{
	return p->length - (p->family == XLVS_IPV6 ? IPV6_FRAGMENT_HEADER : 0);
}

/* The first fragment of an ICMP error. */
static __always_inline int lead_error(struct xdp_md *ctx, struct xlvs_scratch *notes,
				      const struct xlvs_datagram_key *key,
				      const struct xlvs_settings *set)
{
	const struct packet *p = &notes->packet;
	struct flow flow;

	if (!icmp_find(ctx, notes, &flow))
		return leave_to_kernel(p, &notes->fragment, key, set);
	if (!datagram_store(key, p, XLVS_DATAGRAM_FLOW, &flow, set))
		return drop_as(XLVS_DROP_FRAGMENT);
	call_waiting(key, set);
	return relay_on(ctx, notes, &flow, RELAY_ERROR, as_one(p), false);
}

/* Whether a first fragment may make a connection: if not, the rest must go where it goes. */
static __always_inline bool may_begin(const struct packet *p, const struct xlvs_settings *set)
{
	__u32 mark;

	if (!starts_connection(p, set))
		return false;
	if (service_find(p) || set->expected)
		return true;
	if (!(set->flags & XLVS_HAS_OTHERS))
		return false;
	return service_resolve(p, NOBODY, set, &mark) != NOBODY || caller_of(p, set) != NOBODY;
}

/* A first fragment, or a whole packet behind extension headers. */
static __always_inline int lead(struct xdp_md *ctx, struct xlvs_scratch *notes,
				const struct xlvs_datagram_key *key,
				const struct xlvs_settings *set)
{
	const struct fragment *f = &notes->fragment;
	struct packet *p = &notes->packet;
	struct flow flow;
	bool once;

	if (!find_connection(p, &flow, set, &once)) {
		if (is_ipsec(p->protocol) || (!is_whole(f) && !may_begin(p, set)))
			return leave_to_kernel(p, f, key, set);
		return offer_new(ctx, p, set);
	}
	if (is_whole(f))
		return relay_on(ctx, notes, &flow, RELAY_WHOLE, p->length, once);
	if (!datagram_store(key, p, XLVS_DATAGRAM_FLOW, &flow, set))
		return drop_as(XLVS_DROP_FRAGMENT);
	call_waiting(key, set);
	if (once && ends_at_once(flow.conn)) /* it serves the rest of the datagram, too */
		flow.conn->timeout = set->hz;
	return relay_on(ctx, notes, &flow, RELAY_FIRST, as_one(p), false);
}

static __always_inline int handle_fragment(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	enum parsed what = parse_further(ctx);
	struct xlvs_scratch *notes = scratch_get();
	struct xlvs_datagram_key key = {};
	struct fragment *f;
	struct packet *p;

	if (!notes)
		return XDP_PASS;
	p = &notes->packet;
	f = &notes->fragment;
	if (what == PARSED_EXTENSION)
		return pass_as(XLVS_PASS_EXTENSION);
	if (is_whole(f)) {
		if (what == PARSED_FLOW)
			return lead(ctx, notes, &key, set);
		if (what == PARSED_PROTOCOL && is_icmp(p))
			return leave_fast_path(ctx, what, p);
		return pass_as(XLVS_NOT_OURS);
	}
	if (!is_wanted(p, set))
		return pass_as(XLVS_NOT_OURS);
	if (what == PARSED_MALFORMED || !is_possible(p, f))
		return drop_as(XLVS_DROP_FRAGMENT);
	datagram_key(p, f, &key);
	if (what == PARSED_FRAGMENT)
		return follow(ctx, notes, &key, set);
	if (what == PARSED_FLOW)
		return lead(ctx, notes, &key, set);
	if (is_icmp(p))
		return lead_error(ctx, notes, &key, set);
	return leave_to_kernel(p, f, &key, set);
}

#endif
