/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Internet checksums (RFC 1071), their incremental update (RFC 1624), and the
 * completion of partial ones: veth and virtio hand XDP packets whose sender left the
 * TCP or UDP checksum to the hardware, with just the folded pseudo-header sum in the
 * check field.
 */
#ifndef XLVS_CHECKSUM_H
#define XLVS_CHECKSUM_H

#include "maps.h"
#include "parse.h"

#define CHECKSUM_CHUNK	64
#define CHECKSUM_CHUNKS 160 /* 10,240 bytes: more than a jumbo frame */

/* ~(~check + ~old + new), RFC 1624 equation 3. Words in any consistent order. */
static __always_inline __u16 csum_replace(__u16 check, __u64 old_sum, __u64 new_sum)
{
	__u64 sum = (__u16)~check;

	sum += (__u16)~csum_fold(old_sum);
	sum += csum_fold(new_sum);
	return (__u16)~csum_fold(sum);
}

static __always_inline __u64 sum_words(const __u8 *address, __u8 family)
{
	const __u32 *words = (const __u32 *)address;

	if (family == XLVS_IPV4)
		return words[0];
	return (__u64)words[0] + words[1] + words[2] + words[3];
}

static __always_inline __u64 pseudo_sum(const __u8 *saddr, const __u8 *daddr, __u8 family,
					__u8 protocol, __u16 length)
{
	return sum_words(saddr, family) + sum_words(daddr, family) + bpf_htons(protocol) +
	       bpf_htons(length);
}

/*
 * Sum length bytes from offset on, added to seed; the packet must be whole there.
 * A global function: verified once, with packet bounds checked at every step.
 */
__noinline __u32 checksum_range(struct xdp_md *ctx, __u32 offset, __u32 length, __u32 seed)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	/* The last chunk is never empty: 6.1's verifier cannot follow a test for zero. */
	__u32 rest = ((length - 1) & (CHECKSUM_CHUNK - 1)) + 1;
	__u32 chunks = (length - 1) / CHECKSUM_CHUNK;
	struct xlvs_scratch *notes = scratch_get();
	__u64 sum = seed;
	void *at;

	if (!notes || !length)
		return 0;
	at = data + (offset & L4_OFFSETS);
	for (__u32 i = 0; i < CHECKSUM_CHUNKS; i++) {
		if (i >= chunks || at + CHECKSUM_CHUNK > end)
			break;
		sum = bpf_csum_diff(0, 0, at, CHECKSUM_CHUNK, csum_fold(sum));
		at += CHECKSUM_CHUNK;
	}
	__builtin_memset(notes->tail, 0, CHECKSUM_CHUNK);
	if (bpf_xdp_load_bytes(ctx, offset + length - rest, notes->tail, rest))
		return 0;
	sum = bpf_csum_diff(0, 0, (__be32 *)notes->tail, CHECKSUM_CHUNK, csum_fold(sum));
	return csum_fold(sum);
}

/* The transport check field's place in the packet. */
static __always_inline __u32 check_offset(const struct packet *p)
{
	return l4_of(p) + (p->protocol == IPPROTO_TCP ? 16 : 6);
}

static __always_inline __u16 *check_field(void *data, void *end, const struct packet *p)
{
	__u16 *field = data + check_offset(p);

	return (void *)(field + 1) > end ? 0 : field;
}

static __always_inline __u16 l4_length(const struct packet *p)
{
	return p->length - (p->l4 - p->l3);
}

/*
 * Whether the check field holds just the pseudo-header sum. A complete checksum may
 * look so once in 65,536 packets; completing it again then gives the same value.
 */
static __always_inline bool checksum_partial(const struct packet *p, __u16 check)
{
	if (p->protocol == IPPROTO_UDP && !check)
		return false; /* UDP over IPv4 without a checksum */
	return check ==
	       csum_fold(pseudo_sum(p->saddr, p->daddr, p->family, p->protocol, l4_length(p)));
}

/*
 * Write the whole transport checksum of the packet as it stands, between these
 * addresses; 0 of UDP is sent as 0xffff. Packet pointers from before are void after.
 */
static __always_inline bool checksum_write(struct xdp_md *ctx, const struct packet *p,
					   const __u8 *saddr, const __u8 *daddr)
{
	__u16 pseudo = csum_fold(pseudo_sum(saddr, daddr, p->family, p->protocol, l4_length(p)));
	__u16 *field = check_field((void *)(long)ctx->data, (void *)(long)ctx->data_end, p), check;

	if (!field)
		return false;
	*field = 0;
	check = ~(__u16)checksum_range(ctx, p->l4, l4_length(p), pseudo);
	field = check_field((void *)(long)ctx->data, (void *)(long)ctx->data_end, p);
	if (!field)
		return false;
	*field = !check && p->protocol == IPPROTO_UDP ? 0xffff : check;
	return true;
}

#endif
