/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Connections that were announced before their first packet (FTP's data connections), and
 * those among them whose client's port is not known yet: their key leaves it out, and the
 * first packet that meets it fills it in (ip_vs_conn_fill_cport). Until then no other
 * packet finds them, so that nobody reads a tuple that changes.
 */
#ifndef XLVS_EXPECT_H
#define XLVS_EXPECT_H

#include "create.h"

/* The state of a connection that was announced and has not begun (ip_vs_tcp_conn_listen). */
static __always_inline void conn_listen(struct xlvs_conn *conn, const struct xlvs_settings *set)
{
	__u32 word = READ_ONCE(conn->state);

	if (word == XLVS_STATE_ENDED)
		return;
	__sync_val_compare_and_swap(&conn->state, word,
				    XLVS_TCP_LISTEN | (word & XLVS_STATE_INACTIVE));
	conn->timeout = set->tcp_timeout[XLVS_TCP_LISTEN];
	conn->seen = now();
}

/* The connection under a key, if it lives and is that one. */
static __always_inline struct xlvs_conn *conn_under(const struct xlvs_key6 *tuple, __u8 family,
						    struct xlvs_scratch *notes, __u32 *slot)
{
	__u32 *found = index_find(tuple, family);
	struct xlvs_conn *conn;

	if (!found || *found & XLVS_REF_REPLY)
		return 0;
	*slot = *found & XLVS_REF_SLOT;
	conn = conn_at(*slot);
	if (!conn || (READ_ONCE(conn->phase) & XLVS_PHASE) != XLVS_LIVE)
		return 0;
	tuple_of_request(conn, &notes->other);
	return same_tuple(&notes->other, tuple) ? conn : 0;
}

/* The key of a connection from this client to that port, whatever port it comes from. */
static __always_inline void tuple_of_expected(const __u8 *client, const __u8 *vaddr, __be16 vport,
					      struct xlvs_key6 *tuple)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	copy_address(tuple->saddr, client);
	copy_address(tuple->daddr, vaddr);
	tuple->dport = vport;
	tuple->protocol = IPPROTO_TCP;
	tuple->kind = XLVS_KEY_EXPECT;
}

/*
 * Take the key from the connection in that slot, and give it to the one that had it
 * before: two servers may have announced the same port to one client.
 */
static __always_inline void expectation_hide(const struct xlvs_conn *conn, __u32 slot,
					     const struct xlvs_key6 *tuple,
					     struct xlvs_scratch *notes)
{
	__u32 older_slot = conn->older - 1;
	struct xlvs_conn *older = conn->older ? conn_at(older_slot) : 0;

	index_remove(tuple, conn->family, slot);
	if (!older || (READ_ONCE(older->phase) & XLVS_PHASE) != XLVS_LIVE)
		return;
	tuple_of_request(older, &notes->other);
	if (same_tuple(&notes->other, tuple))
		index_insert(tuple, conn->family, older_slot, BPF_NOEXIST);
}

/*
 * Whether the packet is the first of a connection that waited for it: that has a port now.
 * While tables are being replaced it is not filled in: the packet is dropped in the end.
 */
static __always_inline bool expectation_met(const struct packet *p, struct xlvs_scratch *notes,
					    const struct xlvs_settings *set)
{
	struct xlvs_key6 *tuple = &notes->birth.tuple;
	struct xlvs_conn *conn;
	__u32 slot, phase;

	if (p->protocol != IPPROTO_TCP)
		return false;
	tuple_of_expected(p->saddr, p->daddr, p->dport, tuple);
	conn = conn_under(tuple, p->family, notes, &slot);
	if (!conn)
		return false;
	if (set->flags & XLVS_MIGRATING)
		return true;
	phase = READ_ONCE(conn->phase);
	if ((phase & XLVS_PHASE) != XLVS_LIVE ||
	    __sync_val_compare_and_swap(&conn->phase, phase,
					(phase & ~XLVS_PHASE) | XLVS_CLAIMED) != phase)
		return false;
	expectation_hide(conn, slot, tuple, notes);
	expectation_over(conn);
	conn->cport = p->sport;
	conn->flags &= ~XLVS_CONN_NO_CPORT;
	tuple_of_packet(p, tuple);
	if (conn_publish(conn, slot, tuple, &notes->other) == CREATED)
		return true;
	conn_settle(conn);
	conn_free(conn);
	return false;
}

#endif
