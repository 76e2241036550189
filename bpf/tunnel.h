/* SPDX-License-Identifier: GPL-2.0-only */
/* Which shim a destination's tunnel has; both GRE's and GUE's are known here only. */
#ifndef XLVS_TUNNEL_H
#define XLVS_TUNNEL_H

#include "conn.h"
#include "forward/gre.h"
#include "forward/gue.h"
#include "transport.h"

/* The same for all packets of a connection, and nobody outside can tell which. */
static __always_inline __u32 flow_hash(const struct xlvs_conn *conn,
				       const struct xlvs_settings *set)
{
	__u32 seed = set->hash_seed ^ ports_of(&conn->cport) ^ conn->protocol;

	return hash_words((const __u32 *)conn->caddr, 8, seed); /* and vaddr, next to it */
}

/*
 * sums: whether the shim may have a checksum; partial: the packet's own one is still to be
 * computed, and the receiver may do so.
 */
static __always_inline void shim_of(const struct packet *p, const struct xlvs_conn *conn,
				    const struct xlvs_dest *dest, const struct xlvs_settings *set,
				    bool sums, bool partial, struct shim *shim)
{
	__u8 flags = sums ? dest->tunnel_flags : 0;
	bool remote = partial && flags & XLVS_TUNNEL_REMCSUM;

	if (dest->tunnel_type == XLVS_GRE)
		gre_shim(p, flags & XLVS_TUNNEL_CSUM, shim);
	else if (dest->tunnel_type == XLVS_GUE)
		gue_shim(p, dest, flow_hash(conn, set),
			 flags & (XLVS_TUNNEL_CSUM | XLVS_TUNNEL_REMCSUM),
			 remote ? check_offset(p) - l4_of(p) : 0, shim);
}

static __always_inline bool is_partial(struct xdp_md *ctx, const struct packet *p)
{
	__u16 *check = check_field(data_of(ctx), end_of(ctx), p);

	return is_plain(p->protocol) && check && checksum_partial(p, *check);
}

/* Make the packet ready and put it into its destination's tunnel. */
static __always_inline bool tunnel(struct xdp_md *ctx, const struct packet *p,
				   const struct xlvs_dest *dest, const struct shim *shim,
				   __u32 room)
{
	bool ready =
		shim->remote ? decrement_ttl(data_of(ctx), end_of(ctx), p) : pass_on_any(ctx, p);

	return ready && encapsulate_shim(ctx, p, dest, shim, room);
}

#endif
