/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An address picks a row of a table that user space filled: sh and mh by the source,
 * dh by the destination. Hashes are the kernel's to the bit, so that kernel and xlvs
 * directors send a client to the same server.
 */
#ifndef XLVS_SCHEDULE_HASHED_H
#define XLVS_SCHEDULE_HASHED_H

#include "choice.h"
#include "siphash.h"

/* service.flags: XLVS_SERVICE_SCHED1 and 2 are sh-fallback and sh-port, mh's likewise. */
#define HASH_FALLBACK XLVS_SERVICE_SCHED1
#define HASH_PORT     XLVS_SERVICE_SCHED2

#define SH_TABLE_BITS	8 /* CONFIG_IP_VS_SH_TAB_BITS and _DH_ of every distribution */
#define SH_TABLE	(1 << SH_TABLE_BITS)
#define GOLDEN_RATIO_32 0x61c88647u /* linux/hash.h: hash_32 must give the same bits */
#define MH_TABLE	4093	    /* the prime of CONFIG_IP_VS_MH_TAB_INDEX=12 */
#define MH_KEY		2654435761u /* generate_hash_secret of ip_vs_mh.c */

static __always_inline __u32 address_fold(const __u8 *address, __u8 family)
{
	const __u32 *words = (const __u32 *)address;

	return bpf_ntohl(family == XLVS_IPV4 ? words[0]
					     : words[0] ^ words[1] ^ words[2] ^ words[3]);
}

/* Where the offset-th try looks. */
static __always_inline __u32 bucket_of(const struct hash_walk *h, __u32 offset)
{
	if (h->maglev)
		return siphash_word(h->hash + offset, MH_KEY) % MH_TABLE;
	return (offset + (h->hash * GOLDEN_RATIO_32 >> (32 - SH_TABLE_BITS))) & (SH_TABLE - 1);
}

/* Take the destination of a bucket if it is available; false: there is none at all. */
static __always_inline bool take_bucket(struct choice *c, __u32 bucket)
{
	__u32 at = (__u32)c->hashed.table + bucket, pair_row = at / 2, row;
	struct xlvs_bucket_pair *pair = bpf_map_lookup_elem(&buckets, &pair_row);
	struct xlvs_dest *dest;

	if (bucket >= c->hashed.table >> 32 || !pair)
		return false;
	row = pair->dest[at % 2];
	dest = bpf_map_lookup_elem(&dests, &row);
	if (dest && dest->weight > 0 && !overloaded(c, row))
		c->dest = row;
	return true;
}

/* Round the table from where the hash pointed: the first available one. */
static long fall_back(__u32 offset, struct turn *turn)
{
	struct choice *c = turn->c;
	__u32 around = (offset + c->hashed.start) % (c->hashed.maglev ? MH_TABLE : SH_TABLE);

	return !take_bucket(c, bucket_of(&c->hashed, around)) || c->dest != NOBODY;
}

static __always_inline void schedule_hashed(struct turn *turn, const struct packet *p,
					    const __u8 *target)
{
	struct choice *c = turn->c;
	bool by_target = c->scheduler == XLVS_DH;
	__u32 flags = by_target ? 0 : turn->service->flags;
	struct hash_walk *h = &c->hashed;

	h->table = READ_ONCE(turn->service->table);
	h->hash = address_fold(by_target ? target : p->saddr, p->family);
	if (flags & HASH_PORT)
		h->hash += bpf_ntohs(p->sport);
	/* By its size: while a scheduler takes over from another, the table is the first to change. */
	h->maglev = h->table >> 32 == MH_TABLE;
	h->start = bucket_of(h, 0);
	if (take_bucket(c, h->start) && c->dest == NOBODY && flags & HASH_FALLBACK)
		bpf_loop(h->maglev ? MH_TABLE : SH_TABLE, fall_back, turn, 0);
}

#endif
