/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The index of the connection table: one key a direction, naming a slot. How it is made
 * (two kernel hash maps by now) is known in here only.
 */
#ifndef XLVS_INDEX_H
#define XLVS_INDEX_H

#include "maps.h"
#include "parse.h"

/* asm-generic/errno-base.h, asm-generic/errno.h */
#define EBUSY	  16
#define EEXIST	  17
#define EDEADLK	  35
#define ETIMEDOUT 110

#define INDEX_TRIES 4

static __always_inline bool same_address(const __u8 *a, const __u8 *b, __u8 family)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	if (family == XLVS_IPV4)
		return x[0] == y[0];
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline void copy_address(__u8 *to, const __u8 *from)
{
	__builtin_memcpy(to, from, 16);
}

/* Both ports as one word, as they lie in packets, keys and connections. */
static __always_inline __be32 ports_of(const __be16 *sport)
{
	return *(const __be32 *)sport;
}

/* Keys: struct xlvs_key6 serves as the tuple of either family. Words, for the hash reads words. */
static __always_inline struct xlvs_key4 key4_of(const struct xlvs_key6 *tuple)
{
	struct xlvs_key4 key;
	__u32 *word = (__u32 *)&key;

	word[0] = *(__be32 *)tuple->saddr;
	word[1] = *(__be32 *)tuple->daddr;
	word[2] = ports_of(&tuple->sport);
	word[3] = *(const __u32 *)&tuple->protocol; /* and kind */
	return key;
}

/* Keys of persistence engines need the room of the IPv6 index. */
static __always_inline bool is_short(const struct xlvs_key6 *tuple, __u8 family)
{
	return family == XLVS_IPV4 && tuple->kind != XLVS_KEY_ENGINE;
}

static __always_inline __u32 *index_find(const struct xlvs_key6 *tuple, __u8 family)
{
	if (is_short(tuple, family)) {
		struct xlvs_key4 key = key4_of(tuple);

		return bpf_map_lookup_elem(&conn_index4, &key);
	}
	return bpf_map_lookup_elem(&conn_index6, tuple);
}

/* Errors that come from a bucket's lock being held just now (-EBUSY; rqspinlock's on 6.18). */
static __always_inline bool is_transient(long error)
{
	return error == -EBUSY || error == -EDEADLK || error == -ETIMEDOUT;
}

static __always_inline long index_insert(const struct xlvs_key6 *tuple, __u8 family, __u32 ref,
					 __u64 flags)
{
	struct xlvs_key4 key = key4_of(tuple);
	long result = 0;

	for (int i = 0; i < INDEX_TRIES; i++) {
		if (is_short(tuple, family))
			result = bpf_map_update_elem(&conn_index4, &key, &ref, flags);
		else
			result = bpf_map_update_elem(&conn_index6, tuple, &ref, flags);
		if (!is_transient(result))
			break;
	}
	return result;
}

/*
 * Remove a key if it still names ref; false if that could not be done just now. Not inlined:
 * its stack is its own.
 */
static __noinline bool index_remove(const struct xlvs_key6 *tuple, __u8 family, __u32 ref)
{
	struct xlvs_key4 key = key4_of(tuple);
	__u32 *found = index_find(tuple, family);
	long result = 0;

	if (!found || *found != ref)
		return true;
	for (int i = 0; i < INDEX_TRIES; i++) {
		if (is_short(tuple, family))
			result = bpf_map_delete_elem(&conn_index4, &key);
		else
			result = bpf_map_delete_elem(&conn_index6, tuple);
		if (!is_transient(result))
			break;
	}
	return !is_transient(result);
}

static __always_inline void tuple_of_packet(const struct packet *p, struct xlvs_key6 *tuple)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	copy_address(tuple->saddr, p->saddr);
	copy_address(tuple->daddr, p->daddr);
	*(__be32 *)&tuple->sport = ports_of(&p->sport);
	tuple->protocol = p->protocol;
}

/*
 * The reference under a packet's own key. Without a tuple in between for IPv4: loads
 * wider than the stores before them stall.
 */
static __always_inline __u32 *index_find_packet(const struct packet *p)
{
	struct xlvs_key6 tuple;

	if (likely(p->family == XLVS_IPV4)) {
		__u32 key[4] = {
			*(const __be32 *)p->saddr,
			*(const __be32 *)p->daddr,
			ports_of(&p->sport),
			p->protocol,
		};

		_Static_assert(sizeof(key) == sizeof(struct xlvs_key4), "the same key");
		return bpf_map_lookup_elem(&conn_index4, key);
	}
	tuple_of_packet(p, &tuple);
	return bpf_map_lookup_elem(&conn_index6, &tuple);
}

/*
 * A template's key of a persistence engine: a hash of the engine's data takes the upper
 * half of the client's place, the client is folded into the lower.
 */
static __always_inline void tuple_of_engine(struct xlvs_key6 *tuple, const __u8 *hash, __u8 family)
{
	__u64 *place = (__u64 *)tuple->saddr;

	if (family == XLVS_IPV6)
		place[1] ^= place[0] * 0x9e3779b97f4a7c15ull;
	else
		place[1] = place[0];
	place[0] = *(const __u64 *)hash;
	tuple->kind = XLVS_KEY_ENGINE;
}

static __always_inline void tuple_of_request(const struct xlvs_conn *conn, struct xlvs_key6 *tuple)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	copy_address(tuple->saddr, conn->caddr);
	copy_address(tuple->daddr, conn->vaddr);
	tuple->sport = conn->cport;
	tuple->dport = conn->vport;
	tuple->protocol = conn->protocol;
	if (unlikely(conn->flags & XLVS_CONN_TEMPLATE)) {
		tuple->kind = XLVS_KEY_TEMPLATE;
		if (conn->flags & XLVS_CONN_ENGINE)
			tuple_of_engine(tuple, conn->laddr, conn->family);
	}
	if (unlikely(conn->flags & XLVS_CONN_NO_CPORT))
		tuple->kind = XLVS_KEY_EXPECT;
}

/* Whether a local address of the director's stands for the client's. */
static __always_inline bool has_local(__u32 conn_flags)
{
	return (conn_flags & XLVS_CONN_METHOD) == XLVS_FULLNAT;
}

/* Whether the real server is spoken to at its own address. */
static __always_inline bool is_translated(__u32 conn_flags)
{
	return (conn_flags & XLVS_CONN_METHOD) == XLVS_MASQ || has_local(conn_flags);
}

/* A local port was taken for one packet, too: its answers have a way back. */
static __always_inline bool has_reply_key(__u32 conn_flags)
{
	if (conn_flags & (XLVS_CONN_TEMPLATE | XLVS_CONN_NO_CPORT))
		return false;
	if (conn_flags & XLVS_CONN_ONE_PACKET)
		return has_local(conn_flags);
	return is_translated(conn_flags) || conn_flags & XLVS_CONN_LOCAL;
}

/*
 * What the real server's answers look like when they reach the director: a key in the index
 * of conn->server_family.
 */
static __always_inline void tuple_of_reply(const struct xlvs_conn *conn, struct xlvs_key6 *tuple)
{
	bool inside = is_translated(conn->flags), local = has_local(conn->flags);

	__builtin_memset(tuple, 0, sizeof(*tuple));
	copy_address(tuple->saddr, inside ? conn->daddr : conn->vaddr);
	copy_address(tuple->daddr, local ? conn->laddr : conn->caddr);
	tuple->sport = inside ? conn->dport : conn->vport;
	tuple->dport = local ? conn->lport : conn->cport;
	tuple->protocol = conn->protocol;
}

#endif
