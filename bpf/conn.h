/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The connection table: an array of slots, found through a hash index with one key
 * a direction (index.h).
 *
 * A slot's life: FREE -> CLAIMED (compare-and-swap; being filled) -> LIVE (keys are
 * in the index) -> DYING (compare-and-swap; only the winner removes the keys) ->
 * FREE with the next generation. A packet that finds a DYING slot is a new one; it
 * comes back through the tail calls until the old keys are gone. The tuple in the
 * slot is compared with the packet, so a stale key is a miss, never a mistake.
 */
#ifndef XLVS_CONN_H
#define XLVS_CONN_H

#include "index.h"

#define SLOT_NEIGHBOURS 4
#define SLOT_PROBES	64

/* Bytes that the director puts in front of the client's payload (proxy.h). */
static __always_inline __u32 proxy_size(__u32 conn_flags, __u8 family)
{
	if (likely(!(conn_flags & XLVS_CONN_PROXY)))
		return 0;
	return family == XLVS_IPV4 ? 28 : 52;
}

/* What is added to the client's initial sequence number: seq_in without those. */
static __always_inline __u32 syn_shift(const struct xlvs_conn *conn)
{
	return conn->seq_in - proxy_size(conn->flags, conn->family);
}

static __always_inline struct xlvs_conn *conn_at(__u32 slot)
{
	return bpf_map_lookup_elem(&conns, &slot);
}

static __always_inline bool conn_in_use(const struct xlvs_conn *conn)
{
	__u32 phase = READ_ONCE(conn->phase) & XLVS_PHASE;

	return phase == XLVS_LIVE || phase == XLVS_CLAIMED;
}

static __always_inline bool same_tuple(const struct xlvs_key6 *a, const struct xlvs_key6 *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] && x[4] == y[4];
}

static __always_inline bool conn_matches(const struct xlvs_conn *conn, const struct packet *p,
					 bool reply)
{
	bool inside = is_translated(conn->flags), local = has_local(conn->flags);

	if (conn->protocol != p->protocol)
		return false;
	if (!reply)
		return conn->family == p->family && ports_of(&conn->cport) == ports_of(&p->sport) &&
		       same_address(conn->caddr, p->saddr, p->family) &&
		       same_address(conn->vaddr, p->daddr, p->family);
	return conn->server_family == p->family &&
	       (local ? conn->lport : conn->cport) == p->dport &&
	       same_address(local ? conn->laddr : conn->caddr, p->daddr, p->family) &&
	       (inside ? conn->dport : conn->vport) == p->sport &&
	       same_address(inside ? conn->daddr : conn->vaddr, p->saddr, p->family);
}

/* A connection as a packet found it. */
struct flow {
	struct xlvs_conn *conn;
	__u32 ref;
	__u32 generation;
};

/* The live connection that a packet belongs to; false where there is none. */
static __always_inline bool conn_find(const struct packet *p, struct flow *flow)
{
	__u32 *found = index_find_packet(p);
	struct xlvs_conn *conn;

	if (!found)
		return false;
	flow->ref = *found;
	conn = conn_at(flow->ref & XLVS_REF_SLOT);
	if (!conn || !conn_in_use(conn))
		return false;
	flow->conn = conn;
	flow->generation = READ_ONCE(conn->phase) & ~XLVS_PHASE;
	barrier();
	return conn_matches(conn, p, flow->ref & XLVS_REF_REPLY);
}

/* The connection that was made for this packet alone, if one was. */
static __always_inline bool made_for_it(struct flow *flow)
{
	struct xlvs_scratch *notes = scratch_get();

	if (!notes || !notes->once)
		return false;
	flow->ref = notes->once - 1;
	notes->once = 0;
	flow->conn = conn_at(flow->ref & XLVS_REF_SLOT);
	if (!flow->conn)
		return false;
	flow->generation = flow->conn->phase & ~XLVS_PHASE;
	return true;
}

/* What such a connection ends with: that packet, or the time that answers may take. */
static __always_inline bool ends_at_once(const struct xlvs_conn *conn)
{
	return !has_local(conn->flags);
}

static __always_inline bool is_reply(const struct flow *flow)
{
	return flow->ref & XLVS_REF_REPLY;
}

/*
 * Whether the slot is still that connection's. Asked after the last field was read and
 * before the packet is changed: a CPU may be away for a while in between.
 */
static __always_inline bool flow_holds(const struct flow *flow)
{
	barrier();
	return (READ_ONCE(flow->conn->phase) & ~XLVS_PHASE) == flow->generation;
}

static __always_inline __u32 hash_words(const __u32 *words, __u32 count, __u32 seed)
{
	__u64 hash = seed;

#pragma unroll
	for (unsigned int i = 0; i < count; i++) {
		hash ^= words[i];
		hash *= 0x9e3779b97f4a7c15ull; /* 2^64 / golden ratio: spreads low bits up */
		hash ^= hash >> 32;
	}
	return (__u32)hash;
}

static __always_inline __u32 tuple_hash(const struct xlvs_key6 *tuple, __u32 seed)
{
	return hash_words((const __u32 *)tuple, sizeof(*tuple) / 4, seed);
}

struct claim {
	__u32 place;
	__u32 mask;
	__u32 slot;
	bool scattered;
	bool claimed;
};

/* The next of a sequence without pattern (Marsaglia's xorshift); never 0. */
static __always_inline __u32 scatter(__u32 place)
{
	place ^= place << 13;
	place ^= place >> 17;
	return place ^ place << 5;
}

static long claim_probe(__u32 attempt, struct claim *c)
{
	struct xlvs_conn *conn;
	__u32 phase;

	c->slot = c->place & c->mask;
	c->place = c->scattered ? scatter(c->place) : c->place + 1;
	conn = conn_at(c->slot);
	if (!conn)
		return 1;
	phase = READ_ONCE(conn->phase);
	if ((phase & XLVS_PHASE) != XLVS_FREE)
		return 0;
	c->claimed =
		__sync_val_compare_and_swap(&conn->phase, phase, phase | XLVS_CLAIMED) == phase;
	return c->claimed;
}

/*
 * Claim a free slot: the one after this CPU's last, for what is written next to each
 * other is in the cache already; where those are taken, one of many anywhere, from the tuple's
 * hash on. Those follow no pattern, for taken slots lie side by side: steps of one length
 * may all end among them in a table that is half empty. The slot's number is in *slot.
 */
static __always_inline struct xlvs_conn *conn_claim(const struct xlvs_key6 *tuple,
						    const struct xlvs_settings *set,
						    struct xlvs_scratch *notes, __u32 *slot)
{
	struct claim c = { .mask = conn_mask };

	if (!notes->next_slot) /* apart from the other CPUs */
		notes->next_slot = tuple_hash(tuple, set->hash_seed);
	c.place = notes->next_slot;
	bpf_loop(SLOT_NEIGHBOURS, claim_probe, &c, 0);
	if (!c.claimed) {
		c.place = tuple_hash(tuple, set->hash_seed) ?: 1;
		c.scattered = true;
		bpf_loop(SLOT_PROBES, claim_probe, &c, 0);
	}
	notes->next_slot = c.slot + 1;
	*slot = c.slot;
	return c.claimed ? conn_at(c.slot) : 0;
}

/* Hand a claimed or dying slot back, as another generation. Only its owner may. */
static __always_inline void conn_free(struct xlvs_conn *conn)
{
	__u32 phase = READ_ONCE(conn->phase);

	__sync_val_compare_and_swap(&conn->phase, phase,
				    ((phase & ~XLVS_PHASE) + XLVS_GENERATION) | XLVS_FREE);
}

static __always_inline void load_add(__u32 dest, bool inactive, int change)
{
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &dest);

	if (!load)
		return;
	if (inactive)
		__sync_fetch_and_add(&load->inactive, change);
	else
		__sync_fetch_and_add(&load->active, change);
}

/* Connections that thresholds are compared with (ip_vs_dest_totalconns). */
static __always_inline __u64 load_total(const struct xlvs_load *load)
{
	return (__u64)READ_ONCE(load->active) + READ_ONCE(load->inactive);
}

/*
 * A connection or template more: a destination with as many as its upper threshold is
 * overloaded (ip_vs_bind_dest).
 */
static __always_inline void load_enter(const struct xlvs_dest *dest, __u32 row, bool template)
{
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &row);

	if (!load)
		return;
	__sync_fetch_and_add(template ? &load->persistent : &load->inactive, 1);
	if (unlikely(dest->upper && load_total(load) >= dest->upper))
		load->flags |= XLVS_LOAD_OVERLOADED;
}

/* SYNPROXY's SYNs to a destination that wait for an answer. */
static __always_inline void half_open_add(__u32 row, int change)
{
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &row);

	if (load)
		__sync_fetch_and_add(&load->half_open, change);
}

/* A connection waits no more, for whatever reason; true for the one who says so. */
static __always_inline bool half_open_end(struct xlvs_conn *conn)
{
	if (likely(!(READ_ONCE(conn->flags) & XLVS_CONN_HALF_OPEN)) ||
	    !(__sync_fetch_and_and(&conn->flags, ~XLVS_CONN_HALF_OPEN) & XLVS_CONN_HALF_OPEN))
		return false;
	half_open_add(conn->dest, -1);
	return true;
}

/*
 * One less. Overload ends below the lower threshold; without one, below three quarters of
 * the upper (ip_vs_unbind_dest).
 */
static __always_inline void load_leave(__u32 row, __u32 word, bool template)
{
	struct xlvs_load *load = bpf_map_lookup_elem(&loads, &row);
	struct xlvs_dest *dest;
	__u64 total;

	if (!load)
		return;
	if (template)
		__sync_fetch_and_add(&load->persistent, -1);
	else if (word & XLVS_STATE_INACTIVE)
		__sync_fetch_and_add(&load->inactive, -1);
	else
		__sync_fetch_and_add(&load->active, -1);
	if (likely(!(load->flags & XLVS_LOAD_OVERLOADED)))
		return;
	dest = bpf_map_lookup_elem(&dests, &row);
	if (!dest)
		return;
	total = load_total(load);
	if (dest->lower ? total < dest->lower : !dest->upper || total * 4 < dest->upper * 3ull)
		load->flags &= ~XLVS_LOAD_OVERLOADED;
}

/* The template, or controlling connection, that a connection hangs on; null if it is gone. */
static __always_inline struct xlvs_conn *conn_template(const struct xlvs_conn *conn)
{
	struct xlvs_conn *template;

	if (likely(!conn->template_phase))
		return 0;
	template = conn_at(conn->template_slot);
	if (!template || READ_ONCE(template->phase) != conn->template_phase)
		return 0;
	return template;
}

/* A connection whose client's port was not known has got one, or has ended. */
static __always_inline void expectation_over(const struct xlvs_conn *conn)
{
	struct xlvs_settings *set = settings_get();

	if (unlikely(conn->flags & XLVS_CONN_NO_CPORT) && set)
		__sync_fetch_and_add(&set->expected, -1);
}

/* Take a connection out of its destination's counters and its template's, once and for all. */
static __always_inline void conn_settle(struct xlvs_conn *conn)
{
	__u32 word = __sync_lock_test_and_set(&conn->state, XLVS_STATE_ENDED);
	struct xlvs_conn *template;

	if (word == XLVS_STATE_ENDED)
		return;
	load_leave(conn->dest, word, conn->flags & XLVS_CONN_TEMPLATE);
	half_open_end(conn);
	template = conn_template(conn);
	if (template)
		__sync_fetch_and_add(&template->controlled, -1);
	expectation_over(conn);
}

/*
 * Remove a DYING connection's keys and free its slot. Only its owner may, or the timer a
 * second later: where the index was busy, the slot stays DYING until then.
 */
static __always_inline void conn_bury(struct xlvs_conn *conn, __u32 slot)
{
	struct xlvs_scratch *notes = scratch_get();

	if (!notes)
		return;
	conn->seen = now();
	if (has_reply_key(conn->flags)) {
		tuple_of_reply(conn, &notes->removed);
		if (!index_remove(&notes->removed, conn->server_family, slot | XLVS_REF_REPLY))
			return;
	}
	if (conn->flags & XLVS_CONN_ENGINE)
		bpf_map_delete_elem(&engine_data, &slot);
	tuple_of_request(conn, &notes->removed);
	if (index_remove(&notes->removed, conn->family, slot))
		conn_free(conn);
}

/* End a connection; false where somebody else did already. */
static __noinline bool conn_end(struct xlvs_conn *conn, __u32 slot)
{
	__u32 phase = READ_ONCE(conn->phase), dying = (phase & ~XLVS_PHASE) | XLVS_DYING;

	if ((phase & XLVS_PHASE) != XLVS_LIVE)
		return false;
	if (__sync_val_compare_and_swap(&conn->phase, phase, dying) != phase)
		return false;
	conn_settle(conn);
	conn_bury(conn, slot);
	return true;
}

#endif
