/* SPDX-License-Identifier: GPL-2.0-only */
/* TCP segments of the director's own, without payload, written over the packet that they answer. */
#ifndef XLVS_DRAFT_H
#define XLVS_DRAFT_H

#include "checksum.h"
#include "index.h"
#include "tcp_options.h"

#define DRAFT_TTL   64
#define DRAFT_SLACK 64 /* bytes of the old frame that may stay behind the new packet */

static __always_inline void draft_ipv4(struct iphdr *ip, const struct draft *s, __u32 length)
{
	__be32 source = *(const __be32 *)s->saddr, target = *(const __be32 *)s->daddr;
	__u32 *words = (__u32 *)ip;

	words[0] = bpf_htonl(0x45000000 | length);
	words[1] = bpf_htonl(IP_DONT_FRAGMENT);
	words[2] = bpf_htonl(DRAFT_TTL << 24 | IPPROTO_TCP << 16);
	words[3] = source;
	words[4] = target;
	ip->check = ~csum_fold((__u64)words[0] + words[1] + words[2] + source + target);
}

static __always_inline void draft_ipv6(struct ipv6hdr *ip, const struct draft *s, __u32 length)
{
	__u32 *words = (__u32 *)ip;

	words[0] = bpf_htonl(0x60000000);
	words[1] = bpf_htonl(length << 16 | IPPROTO_TCP << 8 | DRAFT_TTL);
	__builtin_memcpy(&ip->saddr, s->saddr, 16);
	__builtin_memcpy(&ip->daddr, s->daddr, 16);
}

/* The TCP header with its options, as far as the packet is known to reach; false where it does not. */
static __always_inline bool draft_tcp(__be32 *tcp, void *end, const struct draft *s, __u8 family)
{
	__u32 size = sizeof(struct tcphdr) + s->words * 4;
	__u64 sum = pseudo_sum(s->saddr, s->daddr, family, IPPROTO_TCP, size);

	if ((void *)(tcp + 5) > end)
		return false;
	tcp[0] = *(const __be32 *)&s->sport;
	tcp[1] = bpf_htonl(s->sequence);
	tcp[2] = bpf_htonl(s->acknowledged);
	tcp[3] = bpf_htonl((size / 4) << 28 | s->flags << 16 | s->window);
	tcp[4] = 0;
	sum += (__u64)tcp[0] + tcp[1] + tcp[2] + tcp[3];
	for (__u32 i = 0; i < DRAFT_OPTIONS && i < s->words; i++) {
		if ((void *)(tcp + 6 + i) > end)
			return false;
		tcp[5 + i] = s->options[i];
		sum += s->options[i];
	}
	*(__u16 *)&tcp[4] = ~csum_fold(sum);
	return true;
}

/*
 * Make the frame long enough for size bytes, with such an IP header, and not much longer. It
 * grows at its front: only there a driver is sure to have room; the link header moves. Where
 * the IP header shrinks, TCP's stays in place: a sum left to hardware must not be beyond it.
 */
static __always_inline bool draft_fit(struct xdp_md *ctx, const struct packet *p,
				      struct xlvs_scratch *notes, __u32 header, __u32 size)
{
	__s32 old = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	__s32 less = (__s32)(p->l4 - p->l3) - (__s32)header;
	__u32 link = ((l3_of(p) - 1) & 31) + 1;

	asm volatile("" : "+r"(old)); /* or clang takes less off a packet pointer */
	if (less < 0)
		less = 0;
	old -= less;
	if (old < (__s32)size) {
		less -= (__s32)size - old;
		old = size;
	}
	if (less &&
	    (bpf_xdp_load_bytes(ctx, 0, notes->made, link) || bpf_xdp_adjust_head(ctx, less) ||
	     bpf_xdp_store_bytes(ctx, 0, notes->made, link)))
		return false;
	return old <= (__s32)size + DRAFT_SLACK || !bpf_xdp_adjust_tail(ctx, (__s32)size - old);
}

/*
 * Write the segment in the CPU's scratch over the packet there, from the IP header on; that
 * then describes what was written. A global function: verified once. 0 where it fails.
 */
__noinline int draft_write(struct xdp_md *ctx)
{
	struct xlvs_scratch *notes = scratch_get();
	__u32 header, length;
	void *data, *end, *ip;
	struct packet *p;
	bool written;

	if (!notes)
		return 0;
	p = &notes->packet;
	header = ip_header_size(p->family);
	length = sizeof(struct tcphdr) + (notes->draft.words & 7) * 4;
	if (!draft_fit(ctx, p, notes, header, p->l3 + header + length))
		return 0;
	data = data_of(ctx);
	end = end_of(ctx);
	ip = data + l3_of(p);
	if (p->family == XLVS_IPV4) {
		if (ip + sizeof(struct iphdr) > end)
			return 0;
		draft_ipv4(ip, &notes->draft, header + length);
		written = draft_tcp(ip + sizeof(struct iphdr), end, &notes->draft, XLVS_IPV4);
	} else {
		if (ip + sizeof(struct ipv6hdr) > end)
			return 0;
		draft_ipv6(ip, &notes->draft, length);
		written = draft_tcp(ip + sizeof(struct ipv6hdr), end, &notes->draft, XLVS_IPV6);
	}
	p->l4 = p->l3 + header;
	p->length = header + length;
	return written;
}

/* The words of a SYN's options, as the offer has them (offer_of), but for its scale. */
static __always_inline void draft_offer(struct draft *s, __u32 offer, __u32 scale, __u32 stamp,
					__u32 echo)
{
	__be32 scaled = bpf_htonl(0x01030300 | scale); /* behind an NOP */
	__be32 permitted = bpf_htonl(0x01010402);
	bool scales = scale != XLVS_NO_SCALE, sack = offer & XLVS_OFFER_SACK;

	s->options[0] = bpf_htonl(0x02040000 | (offer & 0xffff));
	if (offer & XLVS_OFFER_STAMPS) {
		s->options[1] = bpf_htonl(sack ? 0x0402080a : PLAIN_TIMESTAMPS);
		s->options[2] = bpf_htonl(stamp);
		s->options[3] = bpf_htonl(echo);
		s->options[4] = scaled;
		s->words = scales ? 5 : 4;
		return;
	}
	s->options[1] = scales ? scaled : permitted;
	s->options[2] = permitted;
	s->words = 1 + scales + sack;
}

/* Between the packet's ends, the other way. */
static __always_inline void draft_back(struct draft *s, const struct packet *p)
{
	copy_address(s->saddr, p->daddr);
	copy_address(s->daddr, p->saddr);
	s->sport = p->dport;
	s->dport = p->sport;
}

/* Back to where the packet came from, by the link header that brought it. */
static __always_inline bool turn_link_header(struct xdp_md *ctx)
{
	__u32 *to = data_of(ctx), first, second, third;

	if ((void *)(to + 3) > end_of(ctx))
		return false;
	first = to[0];
	second = to[1];
	third = to[2];
	to[0] = second >> 16 | third << 16;
	to[1] = third >> 16 | first << 16;
	to[2] = first >> 16 | second << 16;
	return true;
}

#endif
