/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Making connections: a slot is claimed, filled, and brought to life by its keys in the
 * index. Whoever inserts the key of the request first has made the connection; another
 * CPU's packet looks again.
 */
#ifndef XLVS_CREATE_H
#define XLVS_CREATE_H

#include "local.h"
#include "stamps.h"

enum created {
	CREATED,
	CREATE_AGAIN, /* somebody else has, or an old one is being removed: look again */
	CREATE_FULL,
	CREATE_DRY, /* no local address has a port left */
};

/*
 * The key of the answers. Two clients' ports may meet at one server (through two VIPs):
 * the newest gets the answers, as in IPVS. The one that had the key may be removing it
 * at this moment, so it is looked at once more.
 */
static __always_inline bool publish_reply(struct xlvs_conn *conn, __u32 slot,
					  struct xlvs_key6 *reply)
{
	__u32 ref = slot | XLVS_REF_REPLY;
	long result;

	tuple_of_reply(conn, reply);
	result = index_insert(reply, conn->server_family, ref, BPF_NOEXIST);
	if (result == -EEXIST) {
		result = index_insert(reply, conn->server_family, ref, BPF_ANY);
		if (!result && !index_find(reply, conn->server_family))
			result = index_insert(reply, conn->server_family, ref, BPF_ANY);
	}
	return !result;
}

/* Whether a key that is in the way belongs to nobody: its slot is free or another flow's. */
static __always_inline bool key_is_stale(const struct xlvs_key6 *tuple, __u8 family,
					 struct xlvs_key6 *own)
{
	__u32 *found = index_find(tuple, family);
	struct xlvs_conn *other = found ? conn_at(*found & XLVS_REF_SLOT) : 0;

	if (!other)
		return false;
	if ((READ_ONCE(other->phase) & XLVS_PHASE) == XLVS_FREE)
		return true;
	if (!conn_in_use(other))
		return false;
	if (*found & XLVS_REF_REPLY)
		tuple_of_reply(other, own);
	else
		tuple_of_request(other, own);
	return !same_tuple(own, tuple);
}

/*
 * Put both keys of a filled, claimed slot into the index and bring it to life. What has a
 * local address (local.h) has its key of the answers already.
 */
static __always_inline enum created conn_publish(struct xlvs_conn *conn, __u32 slot,
						 const struct xlvs_key6 *tuple,
						 struct xlvs_key6 *other)
{
	long result = index_insert(tuple, conn->family, slot, BPF_NOEXIST);

	if (result == -EEXIST) {
		if (!key_is_stale(tuple, conn->family, other))
			return CREATE_AGAIN;
		result = index_insert(tuple, conn->family, slot, BPF_ANY);
	}
	if (result)
		return CREATE_FULL;
	if (has_reply_key(conn->flags) && !has_local(conn->flags) &&
	    !publish_reply(conn, slot, other)) {
		index_remove(tuple, conn->family, slot);
		return CREATE_FULL;
	}
	WRITE_ONCE(conn->phase, (conn->phase & ~XLVS_PHASE) | XLVS_LIVE);
	return CREATED;
}

/* Fill a claimed slot; what is not named here was zero or never read. */
static __always_inline void conn_fill(struct xlvs_conn *conn, const struct birth *b,
				      const struct xlvs_dest *dest)
{
	copy_address(conn->caddr, b->client);
	copy_address(conn->vaddr, b->tuple.daddr);
	if (unlikely(b->announced))
		copy_address(conn->daddr, b->server);
	else if (dest)
		copy_address(conn->daddr, dest->address);
	else
		__builtin_memset(conn->daddr, 0, 16);
	conn->cport = b->tuple.sport;
	conn->vport = b->tuple.dport;
	conn->dport = b->dport;
	conn->protocol = b->tuple.protocol;
	conn->family = b->family;
	conn->dest = b->dest;
	conn->flags = b->flags;
	__builtin_memset(&conn->back, 0, 64);
	conn->server_family = dest && is_translated(b->flags) ? dest->family : b->family;
	conn->seq_in = proxy_size(b->flags, b->family);
	if (b->flags & XLVS_CONN_ENGINE)
		*(__u64 *)conn->laddr = b->engine_hash;
	conn->seen = now();
	conn->timeout = b->timeout;
	conn->in_packets = 0;
	conn->fwmark = b->fwmark;
	conn->template_slot = b->template_slot;
	conn->template_phase = b->template_phase;
	conn->controlled = 0;
	conn->seq_before = 0;
	conn->ftp = 0;
	conn->older = b->announced ? b->older : 0;
	conn->edge_in = 0;
	conn->edge_out = 0;
}

/* A connection of SYNPROXY's: what its cookie said; it waits for its real server from now on. */
static __always_inline void conn_proxied(struct xlvs_conn *conn, __u32 row,
					 const struct cookie_note *cookie)
{
	conn->state |= XLVS_TCP_SYN_SENT;
	conn->older = cookie->offer;
	conn->ftp = (__u32)cookie->window << 16;
	conn->seq_base = cookie->cookie;
	conn->edge_in = cookie->isn;
	if (has_local(conn->flags)) {
		conn->older &= ~XLVS_OFFER_STAMPS;
	} else {
		stamps_of(conn)->told = cookie->told;
		stamps_of(conn)->client = cookie->stamp;
	}
	half_open_add(row, 1);
}

/* No slot: it was counted already on what it hangs on, and among those that wait. */
static __always_inline void birth_undone(const struct birth *b, struct xlvs_settings *set)
{
	struct xlvs_conn *template = b->template_phase ? conn_at(b->template_slot) : 0;

	if (template)
		__sync_fetch_and_add(&template->controlled, -1);
	if (b->flags & XLVS_CONN_NO_CPORT)
		__sync_fetch_and_add(&set->expected, -1);
}

/* Everything by which packets find a filled, claimed slot, and its life. */
static __always_inline enum created conn_begin(struct xlvs_conn *conn, const struct xlvs_dest *dest,
					       struct xlvs_scratch *notes,
					       const struct xlvs_settings *set)
{
	struct birth *b = &notes->birth;

	if (has_local(b->flags) && !(b->flags & XLVS_CONN_TEMPLATE)) {
		if (!dest || !local_claim(conn, b->slot, dest->service, notes, set))
			return CREATE_DRY;
		if (b->flags & XLVS_CONN_SHIFTED)
			conn->seq_in += initial_sequence(conn, set) - b->sequence;
	}
	if (!(b->flags & XLVS_CONN_ONE_PACKET))
		return conn_publish(conn, b->slot, &b->tuple, &notes->other);
	WRITE_ONCE(conn->phase, (conn->phase & ~XLVS_PHASE) | XLVS_LIVE);
	return CREATED;
}

/*
 * Make the connection that the CPU's scratch describes (birth): an enum created, the
 * slot's number in birth.slot. One-packet connections are in no index: only who made them
 * knows them, save that answers find their local port. A global function: each program
 * verifies it once.
 */
__noinline int conn_create(void)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();
	enum created made;
	struct xlvs_conn *conn;
	struct xlvs_dest *dest;
	struct birth *b;
	bool template;
	__u32 row, slot;

	if (!set || !notes)
		return CREATE_FULL;
	b = &notes->birth;
	row = b->dest;
	template = b->flags &XLVS_CONN_TEMPLATE;
	dest = bpf_map_lookup_elem(&dests, &row);
	conn = conn_claim(&b->tuple, set, notes, &slot);
	if (!conn) {
		birth_undone(b, set);
		return CREATE_FULL;
	}
	b->slot = slot;
	conn_fill(conn, b, dest);
	/*
	 * Inactive, as in IPVS, until the first packet says otherwise; counted before
	 * anybody else can find it and count it over.
	 */
	if (dest)
		load_enter(dest, row, template);
	conn->state = template ? XLVS_TEMPLATE_NONE : XLVS_STATE_INACTIVE;
	if (unlikely(b->announced))
		conn->state |= XLVS_TCP_LISTEN;
	if (b->flags & XLVS_CONN_SYNPROXY)
		conn_proxied(conn, row, &notes->cookie);
	made = conn_begin(conn, dest, notes, set);
	if (made != CREATED) { /* a key of its own may be in the index: the local port's */
		WRITE_ONCE(conn->phase, conn->phase | XLVS_DYING);
		conn_settle(conn);
		conn_bury(conn, slot);
	}
	return made;
}

#endif
