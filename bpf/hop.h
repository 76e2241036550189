/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Next hops: the kernel's routing answer, kept beside what uses it and fetched again
 * by a packet at most every 100 ms (a lookup costs three times a hash lookup). A
 * sequence number guards readers: odd while somebody writes.
 */
#ifndef XLVS_HOP_H
#define XLVS_HOP_H

#include "maps.h"
#include "parse.h"

#define AF_INET	 2
#define AF_INET6 10
#define LOOPBACK 1 /* ifindex of lo in every network namespace */

/* Copy a cached hop; false when there is none, it is stale or being written. */
static __always_inline bool hop_cached(const struct xlvs_hop *cache, struct xlvs_hop *hop,
				       __u32 time, const struct xlvs_settings *set)
{
	__u32 seq = READ_ONCE(cache->seq);

	if (!seq || seq & 1)
		return false;
	*hop = *cache;
	barrier();
	if (READ_ONCE(cache->seq) != seq)
		return false;
	if (unlikely(hop->flags & XLVS_HOP_COMPANION_NEIGHBOUR))
		return time == hop->checked; /* may be resolved at any moment */
	return time - hop->checked <= set->hop_fresh;
}

static __always_inline void hop_store(struct xlvs_hop *cache, const struct xlvs_hop *hop)
{
	__u32 seq = READ_ONCE(cache->seq);

	if (seq & 1 || __sync_val_compare_and_swap(&cache->seq, seq, seq + 1) != seq)
		return;
	cache->ifindex = hop->ifindex;
	__builtin_memcpy(cache->dmac, hop->dmac, 6);
	__builtin_memcpy(cache->smac, hop->smac, 6);
	cache->mtu = hop->mtu;
	cache->flags = hop->flags;
	cache->checked = hop->checked;
	cache->vlan[0] = hop->vlan[0];
	cache->vlan[1] = hop->vlan[1];
	barrier();
	WRITE_ONCE(cache->seq, seq + 2 ? seq + 2 : 2);
}

/* From the device that routing chose to the one that XDP can transmit on. */
static __always_inline void hop_through_port(struct xlvs_hop *hop)
{
	struct xlvs_port *port = bpf_map_lookup_elem(&ports, &hop->ifindex);

	if (!port || !(port->flags & XLVS_PORT_XDP)) {
		hop->flags |= XLVS_HOP_COMPANION_DEVICE;
		return;
	}
	if (port->flags & XLVS_PORT_TX)
		hop->flags |= XLVS_HOP_TX;
	if (!port->parent)
		return;
	hop->ifindex = port->parent;
	hop->vlan[0] = port->vlan[0];
	hop->vlan[1] = port->vlan[1];
	hop->flags |= port->tags << XLVS_HOP_TAGS_SHIFT;
}

static __always_inline enum xlvs_outcome hop_refusal(long answer)
{
	return answer == BPF_FIB_LKUP_RET_FWD_DISABLED ? XLVS_DROP_FORWARDING_OFF
						       : XLVS_DROP_NO_ROUTE;
}

/* The MTU of the way, where ICMP said that it is less than the device's. */
static __always_inline __u16 path_mtu(const __u8 *target, __u8 family, __u16 mtu, __u32 time)
{
	struct xlvs_path_mtu *path;
	__u8 address[16] = {};

	set_address(address, target, family);
	path = bpf_map_lookup_elem(&path_mtus, address);
	return path && (__s32)(path->until - time) > 0 && path->mtu < mtu ? path->mtu : mtu;
}

/*
 * Ask the kernel's routing; length, if not 0, is compared with the route's MTU. What goes to
 * a real server has no source here: like IPVS, the director sends it as its own, whether or
 * not it forwards (lo does, `up` sees to it). What comes back is forwarded.
 */
static __always_inline long route_lookup(void *ctx, __u32 ingress, __u8 family, const __u8 *source,
					 const __u8 *target, __u32 length,
					 struct bpf_fib_lookup *fib)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->tot_len = length;
	fib->ifindex = source ? ingress : LOOPBACK;
	if (family == XLVS_IPV4) {
		fib->family = AF_INET;
		fib->ipv4_src = source ? *(const __be32 *)source : 0;
		fib->ipv4_dst = *(const __be32 *)target;
	} else {
		fib->family = AF_INET6;
		if (source)
			__builtin_memcpy(fib->ipv6_src, source, 16);
		__builtin_memcpy(fib->ipv6_dst, target, 16);
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

/*
 * The hop towards target, from the cache or from the kernel. Returns 0
 * (XLVS_FORWARDED) or the outcome of a packet that has no way.
 */
static __always_inline enum xlvs_outcome
hop_resolve(struct xdp_md *ctx, struct xlvs_hop *cache, __u8 family, const __u8 *source,
	    const __u8 *target, const struct xlvs_settings *set, struct xlvs_hop *hop)
{
	struct xlvs_scratch *notes;
	struct bpf_fib_lookup *fib;
	__u32 time = now();
	long answer;

	if (likely(hop_cached(cache, hop, time, set)))
		return XLVS_FORWARDED;
	notes = scratch_get();
	if (!notes)
		return XLVS_DROP_NO_ROUTE;
	fib = &notes->fib;
	answer = route_lookup(ctx, ctx->ingress_ifindex, family, source, target, 0, fib);
	if (answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH)
		return hop_refusal(answer);
	__builtin_memset(hop, 0, sizeof(*hop));
	hop->ifindex = fib->ifindex;
	hop->checked = time;
	hop_through_port(hop);
	if (answer == BPF_FIB_LKUP_RET_NO_NEIGH) {
		hop->flags |= XLVS_HOP_COMPANION_NEIGHBOUR;
	} else {
		hop->mtu = path_mtu(target, family, fib->mtu_result, time);
		__builtin_memcpy(hop->dmac, fib->dmac, 6);
		__builtin_memcpy(hop->smac, fib->smac, 6);
	}
	hop_store(cache, hop);
	return XLVS_FORWARDED;
}

#endif
