/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IPv6 extension headers (RFC 8200, 4), as many as a packet may reasonably have, and what
 * either family says of fragments.
 */
#ifndef XLVS_WALK_H
#define XLVS_WALK_H

#include "parse.h"

#define WALK_HEADERS 8
#define IP_OFFSET    0x1fff
#define IP_MORE	     0x2000
/* Next-header numbers of those that are walked; the fragment header is IPPROTO_FRAGMENT. */
#define NEXT_HOP_BY_HOP	 0
#define NEXT_ROUTING	 43
#define NEXT_AH		 51
#define NEXT_DESTINATION 60

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset; /* and the more flag in bit 0 */
	__be32 id;
};

/* Alone in its datagram: no fragment at all, or an atomic one (RFC 6946). */
static __always_inline bool is_whole(const struct fragment *f)
{
	return !f->offset && !f->more;
}

/* Read ports and TCP flags behind any headers. */
static __always_inline enum parsed read_ports(struct xdp_md *ctx, struct packet *p)
{
	__u32 room = p->length - (p->l4 - p->l3);
	__u8 tcp[14];

	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return is_special(p->protocol) ? PARSED_PROTOCOL : PARSED_OTHER;
	if (room < (p->protocol == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr)))
		return PARSED_MALFORMED;
	if (bpf_xdp_load_bytes(ctx, p->l4, &p->sport, 4))
		return PARSED_MALFORMED;
	p->tcp = 0;
	if (p->protocol == IPPROTO_TCP) {
		if (bpf_xdp_load_bytes(ctx, p->l4, tcp, sizeof(tcp)))
			return PARSED_MALFORMED;
		p->tcp = tcp[13];
	}
	return PARSED_FLOW;
}

static __always_inline enum parsed walk_ipv4(struct xdp_md *ctx, struct packet *p,
					     struct fragment *f)
{
	__be16 words[2]; /* identification; flags and offset */

	if (bpf_xdp_load_bytes(ctx, p->l3 + 4, words, sizeof(words)))
		return PARSED_OTHER;
	f->id = words[0];
	f->offset = (bpf_ntohs(words[1]) & IP_OFFSET) * 8;
	f->more = words[1] & bpf_htons(IP_MORE);
	f->size = p->length - (p->l4 - p->l3);
	if (f->offset)
		return PARSED_FRAGMENT;
	return read_ports(ctx, p);
}

/* To the transport header: p->protocol and p->l4; PARSED_FLOW where it was reached. */
static __always_inline enum parsed walk_headers(struct xdp_md *ctx, struct packet *p,
						struct fragment *f)
{
	__u32 at = p->l4, next = p->protocol;
	struct fragment_header head;

	for (int i = 0; i < WALK_HEADERS; i++) {
		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_AH &&
		    next != NEXT_DESTINATION && next != IPPROTO_FRAGMENT)
			break;
		if (at + sizeof(head) > (__u32)p->l3 + p->length ||
		    bpf_xdp_load_bytes(ctx, at, &head, sizeof(head)))
			return PARSED_MALFORMED;
		if (next == IPPROTO_FRAGMENT) {
			if (f->header)
				return PARSED_MALFORMED;
			f->header = true;
			f->id = head.id;
			f->offset = bpf_ntohs(head.offset) & ~7;
			f->more = head.offset & bpf_htons(1);
			f->size = p->l3 + p->length - at - sizeof(head);
			at += sizeof(head);
		} else {
			at += next == NEXT_AH ? (head.reserved + 2) * 4 : (head.reserved + 1) * 8;
		}
		next = head.next;
		if (f->offset)
			break;
		if (at > L4_OFFSETS || at > (__u32)p->l3 + p->length)
			return PARSED_EXTENSION;
	}
	p->l4 = at;
	p->protocol = next;
	if (f->offset)
		return PARSED_FRAGMENT;
	return is_extension(next) ? PARSED_EXTENSION : PARSED_FLOW;
}

static __always_inline enum parsed walk_ipv6(struct xdp_md *ctx, struct packet *p,
					     struct fragment *f)
{
	enum parsed reached = walk_headers(ctx, p, f);

	return reached == PARSED_FLOW ? read_ports(ctx, p) : reached;
}

/*
 * Read on in a packet that parse_frame left at its IP header. PARSED_FRAGMENT: not the
 * first one, there is nothing more to read; else *f says whether it is a fragment at all.
 */
static __always_inline enum parsed walk(struct xdp_md *ctx, struct packet *p, struct fragment *f)
{
	return p->family == XLVS_IPV4 ? walk_ipv4(ctx, p, f) : walk_ipv6(ctx, p, f);
}

#endif
