/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors about the director's own tunnel packets: the way to a TUN real server is
 * narrower than it looked, or broken. As IPVS does (ip_vs_in_icmp's part about IPIP, UDP and
 * GRE), the way's MTU is remembered, and the client is told about its own packet.
 */
#ifndef XLVS_ICMP_TUNNEL_H
#define XLVS_ICMP_TUNNEL_H

#include "icmp_find.h"

#define PATH_MTU_SECONDS 600	    /* net.ipv4.route.mtu_expires */
#define HOP_FORGOTTEN	 0x40000000 /* jiffies: older than any answer that is believed */
#define IPV4_MIN_MTU	 68	    /* RFC 791 */

/* Offset of the packet inside the quoted tunnel packet, and its family; 0 for no tunnel. */
static __always_inline __u32 tunnelled_at(struct xdp_md *ctx, const struct quote *q, __u8 protocol,
					  __u8 *family)
{
	__u8 head[4], gue[4];

	*family = protocol == IPPROTO_IPIP ? XLVS_IPV4 : XLVS_IPV6;
	if (protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6)
		return q->l4;
	if (protocol == IPPROTO_GRE) { /* RFC 2784: the checksum makes it longer */
		if (bpf_xdp_load_bytes(ctx, q->l4, head, sizeof(head)))
			return 0;
		*family = head[2] == 0x08 && !head[3] ? XLVS_IPV4 : XLVS_IPV6;
		return q->l4 + 4 + (head[0] & 0x80 ? 4 : 0);
	}
	if (protocol != IPPROTO_UDP)
		return 0;
	/* GUE (draft-ietf-intarea-gue): a word, and as many of options as that says. */
	if (bpf_xdp_load_bytes(ctx, q->l4 + sizeof(struct udphdr), gue, sizeof(gue)) ||
	    gue[0] & 0xe0)
		return 0;
	*family = gue[1] == IPPROTO_IPIP ? XLVS_IPV4 : XLVS_IPV6;
	return q->l4 + sizeof(struct udphdr) + sizeof(gue) + (gue[0] & 0x1f) * 4;
}

/* The way to this real server takes packets of so many bytes: its next packet will see. */
static __always_inline void path_mtu_store(struct xlvs_dest *dest, __u32 mtu,
					   const struct xlvs_settings *set)
{
	struct xlvs_path_mtu path = { .mtu = mtu, .until = now() + PATH_MTU_SECONDS * set->hz };
	__u8 address[16];

	copy_address(address, dest->address);
	bpf_map_update_elem(&path_mtus, address, &path, BPF_ANY);
	WRITE_ONCE(dest->hop.checked, dest->hop.checked - HOP_FORGOTTEN);
}

/* What the client is told, of what the director was told: only too big is for both versions. */
static __always_inline bool translate_error(const struct packet *p, const struct packet *inner,
					    const struct icmp_header *head, __u32 overhead,
					    const struct xlvs_dest *dest,
					    struct xlvs_scratch *notes)
{
	bool too_big = p->family == XLVS_IPV4
			       ? head->type == ICMP_DEST_UNREACH && head->code == ICMP_FRAG_NEEDED
			       : head->type == ICMPV6_PKT_TOOBIG;
	__u32 mtu = bpf_ntohl(head->mtu);

	notes->error_type = head->type;
	notes->error_code = head->code;
	notes->error_mtu = mtu;
	if (!too_big)
		return inner->family == p->family;
	if (p->family == XLVS_IPV4)
		mtu &= 0xffff;
	notes->path_mtu = mtu;
	/* IPVS goes by the route that it used last, which has not changed yet. */
	if (p->family == XLVS_IPV4 && dest->hop.mtu)
		mtu = dest->hop.mtu;
	notes->error_mtu = mtu > overhead + IPV4_MIN_MTU ? mtu - overhead : mtu;
	notes->error_type = inner->family == XLVS_IPV4 ? ICMP_DEST_UNREACH : ICMPV6_PKT_TOOBIG;
	notes->error_code = inner->family == XLVS_IPV4 ? ICMP_FRAG_NEEDED : 0;
	return true;
}

/* The inner packet to the front of the frame, to be refused in the client's eyes. */
static __always_inline int tell_client(struct xdp_md *ctx, const struct packet *inner, __u32 at,
				       struct xlvs_scratch *notes)
{
	if (at > 2 * L4_OFFSETS || bpf_xdp_adjust_head(ctx, (int)at - (int)sizeof(struct ethhdr)))
		return drop_as(XLVS_DROP_MALFORMED);
	notes->packet = *inner;
	notes->packet.l3 = sizeof(struct ethhdr);
	notes->packet.l4 = 0;
	notes->packet.tags = 0;
	copy_address(notes->error_source, inner->daddr);
	notes->error_outcome = XLVS_TOLD_CLIENT;
	notes->error_routed = 1;
	bpf_tail_call(ctx, &programs, XLVS_PROG_ERROR);
	return drop_as(XLVS_DROP_RACE);
}

/*
 * An error about a tunnel packet of ours; -1 for what is not. notes->quote and about are
 * those of the tunnel packet.
 */
static __always_inline int handle_tunnel_error(struct xdp_md *ctx, struct xlvs_scratch *notes,
					       const struct xlvs_settings *set)
{
	const struct packet *p = &notes->packet;
	__u32 icmp = notes->quote.icmp, begin = notes->quote.ip, at, row;
	struct packet *inner = &notes->turned;
	struct icmp_header head;
	struct xlvs_dest *dest;
	struct flow flow;
	__u8 server[16], family;

	copy_address(server, notes->about.saddr);
	at = tunnelled_at(ctx, &notes->quote, notes->about.protocol, &family);
	if (!at || !read_quote(ctx, at, family))
		return -1;
	turn_round(&notes->about, inner);
	inner->length = p->l3 + p->length - at;
	if (!conn_find(inner, &flow) || (flow.conn->flags & XLVS_CONN_METHOD) != XLVS_TUNNEL)
		return -1;
	row = flow.conn->dest;
	dest = bpf_map_lookup_elem(&dests, &row);
	if (!dest || dest->family != p->family || !same_address(dest->address, server, p->family))
		return -1;
	if (!icmp_intact(ctx, p) || bpf_xdp_load_bytes(ctx, icmp, &head, sizeof(head)))
		return drop_as(XLVS_DROP_ICMP_CHECKSUM);
	notes->path_mtu = 0;
	if (!translate_error(p, inner, &head, at - begin, dest, notes))
		return drop_as(XLVS_TOLD_CLIENT);
	if (notes->path_mtu >= IPV4_MIN_MTU)
		path_mtu_store(dest, notes->path_mtu, set);
	if (notes->path_mtu && !notes->quote.dont_fragment) /* what it may be cut to is known now */
		return drop_as(XLVS_TOLD_CLIENT);
	if (dest->flags & XLVS_DEST_AVAILABLE)
		account_part(dest, row, true, 1, inner->length);
	notes->error_dest = row; /* its own error is an answer more to IPVS */
	return tell_client(ctx, inner, at, notes);
}

#endif
