/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors from one family to the other: their types (RFC 7915, 4.2 and 5.2), and the packet
 * that they quote, which is translated back to what its sender sent.
 */
#ifndef XLVS_ICMP_FAMILY_H
#define XLVS_ICMP_FAMILY_H

#include "icmp_find.h"
#include "ip_head.h"

#define ICMP_PROTO_UNREACH 2
#define ICMP_HOST_UNREACH  1
#define ICMP_HOST_PROHIB   10
#define ICMPV6_ADMIN	   1
#define ICMPV6_NO_ROUTE	   0
#define ICMPV6_PARAMETER   4
#define ICMPV6_NEXT_HEADER 1 /* code of a parameter problem */
#define IPV6_NEXT_HEADER   6 /* its place in the header */
/* Destination unreachable codes of IPv4 that say "not allowed", and the ones for precedence. */
#define ICMP4_PROHIBITED ((1 << 9) | (1 << 10) | (1 << 13) | (1 << 15))
#define ICMP4_NO_ROUTE \
	((1 << 0) | (1 << 1) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 8) | (1 << 11) | (1 << 12))

/* Type and code, and the word behind the checksum, in the host's order. */
struct icmp_kind {
	__u8 type;
	__u8 code;
	__u32 word;
};

/* Where a field of one family's header stands in the other's; 0xff: nowhere (figures 3 and 6). */
static const __u8 pointer_4_to_6[20] = { 0,    1,    4, 4, 0xff, 0xff, 0xff, 0xff, 7,  6,
					 0xff, 0xff, 8, 8, 8,	 8,    24,   24,   24, 24 };

static __always_inline __u8 pointer_6_to_4(__u32 at)
{
	switch (at) {
	case 0:
	case 1:
		return at;
	case 4:
	case 5:
		return 2; /* length */
	case 6:
		return 9; /* protocol */
	case 7:
		return 8; /* TTL */
	default:
		return at < 8 || at >= 40 ? 0xff : at < 24 ? 12 : 16;
	}
}

static __always_inline bool unreachable_4_to_6(struct icmp_kind *k)
{
	__u8 code = k->code;
	__u32 mtu = k->word & 0xffff;

	k->type = ICMPV6_DEST_UNREACH;
	k->word = 0;
	if (code == ICMP_PORT_UNREACH) {
		k->code = ICMPV6_PORT_UNREACH;
	} else if (code == ICMP_FRAG_NEEDED) {
		k->type = ICMPV6_PKT_TOOBIG;
		k->code = 0;
		k->word = mtu + sizeof(struct ipv6hdr) - sizeof(struct iphdr);
		if (k->word < IPV6_MIN_MTU)
			k->word = IPV6_MIN_MTU;
	} else if (code == ICMP_PROTO_UNREACH) {
		k->type = ICMPV6_PARAMETER;
		k->code = ICMPV6_NEXT_HEADER;
		k->word = IPV6_NEXT_HEADER;
	} else if (code < 16 && ICMP4_NO_ROUTE >> code & 1) {
		k->code = ICMPV6_NO_ROUTE;
	} else if (code < 16 && ICMP4_PROHIBITED >> code & 1) {
		k->code = ICMPV6_ADMIN;
	} else {
		return false;
	}
	return true;
}

/* What an IPv4 error is called in IPv6; false where it is nothing. */
static __always_inline bool kind_4_to_6(struct icmp_kind *k)
{
	__u32 at = k->word >> 24;

	if (k->type == ICMP_DEST_UNREACH)
		return unreachable_4_to_6(k);
	k->word = 0;
	if (k->type == ICMP_TIME_EXCEEDED) {
		k->type = ICMPV6_TIME_EXCEED;
		return true;
	}
	if (k->type != ICMP_PARAMETER || (k->code != 0 && k->code != 2) ||
	    at >= sizeof(pointer_4_to_6))
		return false;
	k->type = ICMPV6_PARAMETER;
	k->code = 0;
	k->word = pointer_4_to_6[at];
	return k->word != 0xff;
}

/* The reverse. */
static __always_inline bool kind_6_to_4(struct icmp_kind *k)
{
	__u32 word = k->word;

	k->word = 0;
	switch (k->type) {
	case ICMPV6_DEST_UNREACH:
		k->type = ICMP_DEST_UNREACH;
		if (k->code > ICMPV6_PORT_UNREACH)
			return false;
		k->code = k->code == ICMPV6_PORT_UNREACH ? ICMP_PORT_UNREACH
			  : k->code == ICMPV6_ADMIN	 ? ICMP_HOST_PROHIB
							 : ICMP_HOST_UNREACH;
		return true;
	case ICMPV6_PKT_TOOBIG:
		k->type = ICMP_DEST_UNREACH;
		k->code = ICMP_FRAG_NEEDED;
		word -= sizeof(struct ipv6hdr) - sizeof(struct iphdr);
		k->word = word > 0xffff ? 0xffff : word;
		return true;
	case ICMPV6_TIME_EXCEED:
		k->type = ICMP_TIME_EXCEEDED;
		return true;
	case ICMPV6_PARAMETER:
		if (k->code == ICMPV6_NEXT_HEADER) {
			k->type = ICMP_DEST_UNREACH;
			k->code = ICMP_PROTO_UNREACH;
			return true;
		}
		if (k->code || word >= sizeof(struct ipv6hdr))
			return false;
		k->type = ICMP_PARAMETER;
		k->word = (__u32)pointer_6_to_4(word) << 24;
		return k->word != 0xffu << 24;
	default:
		return false;
	}
}

/* Add to a number at that offset of the frame. */
static __always_inline bool add_to(struct xdp_md *ctx, __u32 at, __u32 added)
{
	__be32 number;

	if (bpf_xdp_load_bytes(ctx, at, &number, sizeof(number)))
		return false;
	number = bpf_htonl(bpf_ntohl(number) + added);
	return !bpf_xdp_store_bytes(ctx, at, &number, sizeof(number));
}

/*
 * The quoted packet's ports and TCP numbers, at the offset that they have by now. It went the
 * other way: its source is this one's target.
 */
static __always_inline bool quoted_ends(struct xdp_md *ctx, __u32 at, __u32 numbers,
					const struct translation *t)
{
	__be16 ports[2] = { t->dport, t->sport };

	return !bpf_xdp_store_bytes(ctx, at, ports, sizeof(ports)) &&
	       (numbers < 1 || add_to(ctx, at + 4, t->acknowledged)) &&
	       (numbers < 2 || add_to(ctx, at + 8, t->sequence));
}

/* What the quoted IP header says; its packet may have been longer than the quotation. */
static __always_inline bool quoted_head(struct xdp_md *ctx, const struct quote *q, __u8 family,
					struct ip_head *h)
{
	bool ipv4 = family == XLVS_IPV4;
	__be16 length;

	if (!ip_head_read(ctx, q->ip, family, h) ||
	    bpf_xdp_load_bytes(ctx, q->ip + (ipv4 ? 2 : 4), &length, sizeof(length)) ||
	    bpf_xdp_load_bytes(ctx, q->ip + (ipv4 ? 8 : 7), &h->ttl, 1))
		return false;
	h->payload = bpf_ntohs(length) + (ipv4 ? 0 : sizeof(struct ipv6hdr)) - (q->l4 - q->ip);
	return true;
}

/* The ICMP header, and the checksum of its message, all of which stands already. */
static __always_inline bool icmp_write(struct xdp_md *ctx, __u32 at, __u32 length,
				       const struct icmp_kind *k, __u32 seed)
{
	__be32 words[2] = { bpf_htonl((__u32)k->type << 24 | (__u32)k->code << 16),
			    bpf_htonl(k->word) };
	__u16 check;

	if (bpf_xdp_store_bytes(ctx, at, words, sizeof(words)))
		return false;
	check = ~(__u16)checksum_range(ctx, at, length, seed);
	return !bpf_xdp_store_bytes(ctx, at + 2, &check, sizeof(check));
}

/* Cut the frame to so many bytes, if it is longer. */
static __always_inline bool frame_cut(struct xdp_md *ctx, __u32 most)
{
	__u32 size = (void *)(long)ctx->data_end - (void *)(long)ctx->data;

	return size <= most || !bpf_xdp_adjust_tail(ctx, (int)most - (int)size);
}

/*
 * An ICMP error: two IP headers, and what is between them, are written anew in front of the
 * quoted transport header. The outer one's fields are in *outer.
 */
static __always_inline bool error_across(struct xdp_md *ctx, struct xlvs_scratch *notes,
					 const struct ip_head *outer, const struct translation *t,
					 __u32 room)
{
	const struct packet *p = &notes->packet;
	bool ipv6 = outer->family == XLVS_IPV6;
	__u32 base = ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	__u32 kept = p->l3 + p->length - notes->quote.l4, icmp = room + base;
	__u32 most = ipv6 ? IPV6_MIN_MTU : p->length, length, seed = 0;
	struct ip_head head = *outer, quoted = {};
	struct icmp_kind kind;
	__be32 words[2];

	if (bpf_xdp_load_bytes(ctx, notes->quote.icmp, words, sizeof(words)) ||
	    !quoted_head(ctx, &notes->quote, p->family, &quoted))
		return false;
	kind.type = bpf_ntohl(words[0]) >> 24;
	kind.code = bpf_ntohl(words[0]) >> 16;
	kind.word = bpf_ntohl(words[1]);
	if (!(ipv6 ? kind_4_to_6(&kind) : kind_6_to_4(&kind)))
		return false;
	quoted.family = outer->family;
	quoted.protocol = notes->about.protocol;
	length = sizeof(words) + base + kept;
	if (length + base > most)
		length = most - base;
	head.protocol = ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	head.payload = length;
	head.fragment = false;
	if (bpf_xdp_adjust_head(ctx, (int)notes->quote.l4 - (int)(icmp + sizeof(words) + base)) ||
	    !frame_cut(ctx, icmp + length))
		return false;
	if (ipv6)
		seed = csum_fold(pseudo_sum(t->saddr, t->daddr, XLVS_IPV6, IPPROTO_ICMPV6, length));
	/* The quoted packet went the other way. */
	return quoted_ends(ctx, icmp + sizeof(words) + base, notes->quote.numbers, t) &&
	       ip_head_write(ctx, icmp + sizeof(words), &quoted, t->daddr, t->saddr) &&
	       ip_head_write(ctx, room, &head, t->saddr, t->daddr) &&
	       icmp_write(ctx, icmp, length, &kind, seed);
}

#endif
