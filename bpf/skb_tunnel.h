/* SPDX-License-Identifier: GPL-2.0-only */
/* Tunnels on an skb, by the tc companion. */
#ifndef XLVS_SKB_TUNNEL_H
#define XLVS_SKB_TUNNEL_H

#include "tunnel.h"

struct sum_walk {
	struct __sk_buff *skb;
	__u32 offset;
	__u32 sum;
};

static long sum_chunk(__u32 chunk, struct sum_walk *walk)
{
	struct xlvs_scratch *notes = scratch_get();

	if (!notes || bpf_skb_load_bytes(walk->skb, walk->offset, notes->tail, CHECKSUM_CHUNK))
		return 1;
	walk->sum =
		csum_fold(bpf_csum_diff(0, 0, (__be32 *)notes->tail, CHECKSUM_CHUNK, walk->sum));
	walk->offset += CHECKSUM_CHUNK;
	return 0;
}

/* As checksum_range, of an skb. */
__noinline __u32 skb_checksum_range(struct __sk_buff *skb, __u32 offset, __u32 length, __u32 seed)
{
	struct sum_walk walk = { .skb = skb, .offset = offset, .sum = seed };
	__u32 rest = ((length - 1) & (CHECKSUM_CHUNK - 1)) + 1;
	struct xlvs_scratch *notes = scratch_get();

	if (!notes || !length)
		return 0;
	bpf_loop((length - 1) / CHECKSUM_CHUNK, sum_chunk, &walk, 0);
	__builtin_memset(notes->tail, 0, CHECKSUM_CHUNK);
	if (bpf_skb_load_bytes(skb, walk.offset, notes->tail, rest))
		return 0;
	return csum_fold(bpf_csum_diff(0, 0, (__be32 *)notes->tail, CHECKSUM_CHUNK, walk.sum));
}

/*
 * The shim's checksum. An inner one that is still partial stays so, for the kernel completes
 * it as the packet leaves: complete, its segment will sum up to what undoes its pseudo-header.
 */
static __always_inline bool skb_sum_shim(struct __sk_buff *skb, const struct packet *p,
					 const struct xlvs_dest *dest, const struct shim *shim,
					 bool partial)
{
	__u32 at = p->l3 + tunnel_header(dest), length = p->length + shim->size;
	__u32 seed = shim_seed(shim, dest, length), counted = length;
	__u16 check;

	if (partial) {
		counted -= l4_length(p);
		seed += (__u16)~csum_fold(
			pseudo_sum(p->saddr, p->daddr, p->family, p->protocol, l4_length(p)));
	}
	check = shim_check(shim, skb_checksum_range(skb, at, counted, csum_fold(seed)));
	return !bpf_skb_store_bytes(skb, at + shim->check, &check, sizeof(check), 0);
}

static __always_inline bool skb_write_shim(struct __sk_buff *skb, __u32 at, const struct shim *shim)
{
	for (__u32 i = 0; i < SHIM_WORDS; i++) {
		if (i * 4 >= shim->size)
			break;
		if (bpf_skb_store_bytes(skb, at + i * 4, &shim->word[i], 4, 0))
			return false;
	}
	return true;
}

static __always_inline __u64 room_flags(const struct xlvs_dest *dest, const struct shim *shim)
{
	__u64 flags = dest->family == XLVS_IPV4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
						: BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;

	if (!shim->size)
		return flags;
	return flags | (shim->protocol == IPPROTO_UDP ? BPF_F_ADJ_ROOM_ENCAP_L4_UDP
						      : BPF_F_ADJ_ROOM_ENCAP_L4_GRE);
}

static __always_inline bool skb_is_partial(struct __sk_buff *skb, const struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u16 *check = check_field(data, end, p);

	return is_plain(p->protocol) && check && checksum_partial(p, *check);
}

/*
 * The outer headers for a packet. Not inlined: its stack is its own.
 */
static __noinline bool skb_encapsulate(struct __sk_buff *skb, const struct packet *p,
				       const struct xlvs_dest *dest, const struct shim *shim)
{
	bool ipv4 = dest->family == XLVS_IPV4, partial = skb_is_partial(skb, p);
	struct inner in = {};
	union {
		struct iphdr ip4;
		struct ipv6hdr ip6;
	} outer = {};

	if (!read_inner((void *)(long)skb->data, (void *)(long)skb->data_end, p, &in))
		return false;
	if (shim->size) {
		in.protocol = shim->protocol;
		in.length += shim->size;
	}
	if (bpf_skb_adjust_room(skb, tunnel_header(dest) + shim->size, BPF_ADJ_ROOM_MAC,
				room_flags(dest, shim)))
		return false;
	if (ipv4) {
		write_outer_ipv4(&outer.ip4, dest, &in);
		if (bpf_skb_store_bytes(skb, p->l3, &outer.ip4, sizeof(outer.ip4), 0))
			return false;
	} else {
		write_outer_ipv6(&outer.ip6, dest, &in);
		if (bpf_skb_store_bytes(skb, p->l3, &outer.ip6, sizeof(outer.ip6), 0))
			return false;
	}
	if (!skb_write_shim(skb, p->l3 + tunnel_header(dest), shim))
		return false;
	return !shim->check || skb_sum_shim(skb, p, dest, shim, partial);
}

#endif
