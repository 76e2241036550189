/* SPDX-License-Identifier: GPL-2.0-only */
/* IP headers read and written in either family: what they say alike (RFC 7915, 4.1 and 5.1). */
#ifndef XLVS_IP_HEAD_H
#define XLVS_IP_HEAD_H

#include "checksum.h"
#include "walk.h"

#define FRAGMENT_HEADER 8
#define IP_HEAD_MOST	(sizeof(struct ipv6hdr) + FRAGMENT_HEADER)

struct ip_head {
	__u8 family; /* that it is to be written in */
	__u8 traffic_class;
	__u8 ttl;
	__u8 protocol;
	bool dont_fragment;
	bool fragment; /* one of several; IPv6 has a header of its own for that */
	bool more;
	__u16 payload; /* bytes behind all of it */
	__u32 offset;
	__u32 id;
};

static __always_inline __u32 ip_head_size(const struct ip_head *h)
{
	if (h->family == XLVS_IPV4)
		return sizeof(struct iphdr);
	return h->fragment ? IP_HEAD_MOST : sizeof(struct ipv6hdr);
}

/* Traffic class and whether routers may fragment, of the header at that offset. */
static __always_inline bool ip_head_read(struct xdp_md *ctx, __u32 at, __u8 family,
					 struct ip_head *h)
{
	__be32 words[2];

	if (bpf_xdp_load_bytes(ctx, at, words, sizeof(words)))
		return false;
	h->traffic_class = bpf_ntohl(words[0]) >> (family == XLVS_IPV4 ? 16 : 20);
	h->dont_fragment = family == XLVS_IPV6 || words[1] & bpf_htonl(IP_DONT_FRAGMENT);
	return true;
}

static __always_inline bool ip_head_write4(struct xdp_md *ctx, __u32 at, const struct ip_head *h,
					   const __u8 *saddr, const __u8 *daddr)
{
	__u16 fragment = h->dont_fragment ? IP_DONT_FRAGMENT : h->more ? IP_MORE : 0;
	__be32 words[5] = {
		bpf_htonl(0x45u << 24 | (__u32)h->traffic_class << 16 |
			  (__u16)(h->payload + sizeof(struct iphdr))),
		bpf_htonl(h->id << 16 | fragment | (h->offset >> 3 & IP_OFFSET)),
		bpf_htonl((__u32)h->ttl << 24 | (__u32)h->protocol << 16),
		*(const __be32 *)saddr,
		*(const __be32 *)daddr,
	};

	words[2] |= bpf_htonl(bpf_ntohs(
		(__u16)~csum_fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4])));
	return !bpf_xdp_store_bytes(ctx, at, words, sizeof(words));
}

static __always_inline bool ip_head_write6(struct xdp_md *ctx, __u32 at, const struct ip_head *h,
					   const __u8 *saddr, const __u8 *daddr)
{
	__u32 more = h->fragment ? FRAGMENT_HEADER : 0;
	__be32 words[2] = {
		bpf_htonl(6u << 28 | (__u32)h->traffic_class << 20),
		bpf_htonl((__u32)(h->payload + more) << 16 |
			  (__u32)(h->fragment ? IPPROTO_FRAGMENT : h->protocol) << 8 | h->ttl),
	};
	__be32 part[2] = {
		bpf_htonl((__u32)h->protocol << 24 | (h->offset & 0xfff8) | h->more),
		bpf_htonl(h->id),
	};

	if (bpf_xdp_store_bytes(ctx, at, words, sizeof(words)) ||
	    bpf_xdp_store_bytes(ctx, at + 8, (void *)saddr, 16) ||
	    bpf_xdp_store_bytes(ctx, at + 24, (void *)daddr, 16))
		return false;
	return !h->fragment ||
	       !bpf_xdp_store_bytes(ctx, at + sizeof(struct ipv6hdr), part, sizeof(part));
}

/* Write it at that offset of the frame. */
static __always_inline bool ip_head_write(struct xdp_md *ctx, __u32 at, const struct ip_head *h,
					  const __u8 *saddr, const __u8 *daddr)
{
	return h->family == XLVS_IPV4 ? ip_head_write4(ctx, at, h, saddr, daddr)
				      : ip_head_write6(ctx, at, h, saddr, daddr);
}

#endif
