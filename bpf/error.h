/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors that the director itself sends: no destination (port unreachable),
 * packet too big, TTL exceeded. The refused packet is turned round in place. As the
 * kernel does, the VIP is the source and as much is quoted as 576 bytes (RFC 1812,
 * 4.3.2.3) or 1280 bytes (RFC 4443, 2.4 c) leave room for; and like the kernel's
 * icmp_msgs_per_sec, a limit keeps the director from being a reflector.
 */
#ifndef XLVS_ERROR_H
#define XLVS_ERROR_H

#include "checksum.h"
#include "outcome.h"
#include "ready.h"
#include "service.h"

#define QUOTE4	  (576 - 28)
#define QUOTE6	  (1280 - 48)
#define ERROR_TTL 64
/* Types and codes: RFC 792 and RFC 4443. (linux/icmp.h drags in the C library.) */
#define ICMP_DEST_UNREACH   3
#define ICMP_PORT_UNREACH   3
#define ICMP_FRAG_NEEDED    4
#define ICMP_TIME_EXCEEDED  11
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PORT_UNREACH 4
#define ICMPV6_PKT_TOOBIG   2
#define ICMPV6_TIME_EXCEED  3
#define ERROR_TOS	    0xc0 /* internetwork control, RFC 1812 4.3.2.5 ... */
#define ERROR_TOS_KEEP	    0x1e /* ... over the packet's own bits: the kernel's RT_TOS */
#define IPV6_MIN_MTU	    1280

/* Both versions' head: the last word holds the MTU, in IPv4 its lower half. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 mtu;
};

/*
 * Have the error program answer this packet. source is the address that
 * answers; dest the destination (row) that the answer is counted for, or NOBODY.
 */
static __always_inline int refuse(struct xdp_md *ctx, const struct packet *p, const __u8 *source,
				  __u32 dest, enum xlvs_outcome outcome, __u32 mtu)
{
	struct xlvs_scratch *notes = scratch_get();

	if (!notes)
		return XDP_DROP;
	notes->packet = *p;
	__builtin_memcpy(notes->error_source, source, 16);
	notes->error_outcome = outcome;
	notes->error_mtu = mtu;
	notes->error_dest = dest;
	notes->error_routed = 0;
	bpf_tail_call(ctx, &programs, XLVS_PROG_ERROR);
	return drop_as(outcome);
}

static __always_inline bool error_allowed(struct xlvs_scratch *notes,
					  const struct xlvs_settings *set)
{
	__u32 second = now() / set->hz;

	if (notes->limit_second != second) {
		notes->limit_second = second;
		notes->limit_count = 0;
	}
	return notes->limit_count++ < set->icmp_limit;
}

/* Cut the frame to its quotation and make room for the new headers before it. */
static __always_inline bool make_room(struct xdp_md *ctx, const struct packet *p, __u32 headers,
				      __u32 quote)
{
	__u32 size = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	__u32 keep = p->l3 + (p->length < quote ? p->length : quote);

	if (keep < size && bpf_xdp_adjust_tail(ctx, -(int)(size - keep)))
		return false;
	return !bpf_xdp_adjust_head(ctx, -(int)headers);
}

/* Out of the device it came in by. */
static __always_inline int send_back(struct xdp_md *ctx)
{
	__u32 ingress = ctx->ingress_ifindex;
	struct xlvs_port *port = bpf_map_lookup_elem(&ports, &ingress);

	return port && port->flags & XLVS_PORT_TX ? XDP_TX : (int)bpf_redirect(ingress, 0);
}

/* Move the old link header to the front, turned round. */
static __always_inline bool return_link_header(struct xdp_md *ctx, __u32 l3, __u32 headers)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 old[22] = {};
	struct ethhdr *eth = data;

	if (l3 > sizeof(old) || data + headers + sizeof(old) > end || data + sizeof(old) > end)
		return false;
	__builtin_memcpy(old, data + headers, sizeof(old));
	__builtin_memcpy(eth->h_dest, old + 6, 6);
	__builtin_memcpy(eth->h_source, old, 6);
	__builtin_memcpy(data + 12, old + 12, 2);
	if (l3 >= 18)
		__builtin_memcpy(data + 14, old + 14, 4);
	if (l3 >= 22)
		__builtin_memcpy(data + 18, old + 18, 4);
	return true;
}

/* To the packet's sender by routing: it has not come from there. The frame has no tags. */
static __always_inline int send_routed(struct xdp_md *ctx, const struct packet *p,
				       const struct xlvs_settings *set)
{
	struct xlvs_scratch *notes = scratch_get();
	enum xlvs_outcome outcome;
	struct xlvs_hop hop, own = {};
	__u8 target[16];

	if (!notes || bpf_xdp_load_bytes(ctx, 0, own.dmac, 12))
		return XDP_DROP;
	copy_address(target, p->saddr);
	__builtin_memset(&notes->hop, 0, sizeof(notes->hop));
	outcome = hop_resolve(ctx, &notes->hop, p->family, 0, target, set, &hop);
	if (outcome)
		return XDP_DROP;
	outcome = needs_companion(&hop);
	if (outcome)
		return hand_ready(ctx, outcome, &own, sizeof(struct ethhdr), p->family, target,
				  false);
	if (!link_to(ctx, &hop, sizeof(struct ethhdr), p->family))
		return XDP_DROP;
	return leave_by(ctx, &hop);
}

/* Put the checksum into the ICMP message of length bytes at this offset, and send it off. */
static __always_inline int finish(struct xdp_md *ctx, const struct packet *p, __u32 at,
				  __u32 length, __u32 seed)
{
	struct xlvs_settings *set = settings_get();
	struct xlvs_scratch *notes = scratch_get();
	__u32 sum = checksum_range(ctx, at, length, seed);
	struct icmp_header *icmp = (void *)(long)ctx->data + at;

	if ((void *)(icmp + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	icmp->checksum = ~(__u16)sum;
	if (unlikely(notes && set && notes->error_routed))
		return send_routed(ctx, p, set);
	return send_back(ctx);
}

static __always_inline int answer_ipv4(struct xdp_md *ctx, const struct packet *p,
				       const __u8 *source, __u8 type, __u8 code, __u32 mtu)
{
	const __u32 headers = sizeof(struct iphdr) + sizeof(struct icmp_header);
	__u32 length = headers + (p->length < QUOTE4 ? p->length : QUOTE4);
	__u32 l3 = l3_of(p);
	struct icmp_header *icmp;
	struct iphdr *ip, *quoted;
	void *data, *end;

	if (!make_room(ctx, p, headers, QUOTE4) || !return_link_header(ctx, l3, headers))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (l3 > 22)
		return XDP_DROP;
	ip = data + l3;
	icmp = (void *)(ip + 1);
	quoted = (void *)(icmp + 1);
	if ((void *)(quoted + 1) > end)
		return XDP_DROP;
	__builtin_memset(ip, 0, headers);
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = ERROR_TOS | (quoted->tos & ERROR_TOS_KEEP);
	ip->tot_len = bpf_htons(length);
	ip->ttl = ERROR_TTL;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = *(const __be32 *)source;
	ip->daddr = *(__be32 *)p->saddr;
	ip->check = ~csum_fold((__u32)bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
	icmp->type = type;
	icmp->code = code;
	icmp->mtu = bpf_htonl(mtu & 0xffff);
	return finish(ctx, p, l3 + sizeof(*ip), length - sizeof(*ip), 0);
}

static __always_inline int answer_ipv6(struct xdp_md *ctx, const struct packet *p,
				       const __u8 *source, __u8 type, __u8 code, __u32 mtu)
{
	const __u32 headers = sizeof(struct ipv6hdr) + sizeof(struct icmp_header);
	__u32 payload = sizeof(struct icmp_header) + (p->length < QUOTE6 ? p->length : QUOTE6);
	__u32 l3 = l3_of(p), sum;
	struct icmp_header *icmp;
	struct ipv6hdr *ip;
	void *data, *end;

	if (!make_room(ctx, p, headers, QUOTE6) || !return_link_header(ctx, l3, headers))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (l3 > 22)
		return XDP_DROP;
	ip = data + l3;
	icmp = (void *)(ip + 1);
	if ((void *)(icmp + 1) > end)
		return XDP_DROP;
	__builtin_memset(ip, 0, headers);
	ip->version = 6;
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = ERROR_TTL;
	__builtin_memcpy(&ip->saddr, source, 16);
	__builtin_memcpy(&ip->daddr, p->saddr, 16);
	icmp->type = type;
	icmp->code = code;
	icmp->mtu = bpf_htonl(mtu < IPV6_MIN_MTU && mtu ? IPV6_MIN_MTU : mtu);
	sum = csum_fold(pseudo_sum(source, p->saddr, XLVS_IPV6, IPPROTO_ICMPV6, payload));
	return finish(ctx, p, l3 + sizeof(*ip), payload, sum);
}

/* The error program's work: which error for which outcome. */
static __always_inline int send_error(struct xdp_md *ctx, const struct packet *p,
				      const struct xlvs_scratch *notes)
{
	bool ipv4 = p->family == XLVS_IPV4;
	const __u8 *source = notes->error_source;
	__u32 mtu = notes->error_mtu;

	switch (notes->error_outcome) {
	case XLVS_DROP_NO_DESTINATION:
	case XLVS_DROP_UNKNOWN_ANSWER:
		return ipv4 ? answer_ipv4(ctx, p, source, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
			    : answer_ipv6(ctx, p, source, ICMPV6_DEST_UNREACH, ICMPV6_PORT_UNREACH,
					  0);
	case XLVS_DROP_TOO_BIG:
		return ipv4 ? answer_ipv4(ctx, p, source, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, mtu)
			    : answer_ipv6(ctx, p, source, ICMPV6_PKT_TOOBIG, 0, mtu);
	case XLVS_DROP_TTL:
		return ipv4 ? answer_ipv4(ctx, p, source, ICMP_TIME_EXCEEDED, 0, 0)
			    : answer_ipv6(ctx, p, source, ICMPV6_TIME_EXCEED, 0, 0);
	case XLVS_TOLD_CLIENT:
		return ipv4 ? answer_ipv4(ctx, p, source, notes->error_type, notes->error_code, mtu)
			    : answer_ipv6(ctx, p, source, notes->error_type, notes->error_code,
					  mtu);
	default:
		return XDP_DROP;
	}
}

/* IPVS counts the errors that a connection's packets cause among its answers. */
static __always_inline void account_error(const struct packet *p, __u32 dest_row)
{
	struct xlvs_dest *dest = bpf_map_lookup_elem(&dests, &dest_row);
	__u32 quote = p->family == XLVS_IPV4 ? QUOTE4 : QUOTE6;
	__u32 headers = sizeof(struct icmp_header);

	headers += ip_header_size(p->family);
	if (dest && dest->flags & XLVS_DEST_AVAILABLE)
		account(dest, dest_row, true, headers + (p->length < quote ? p->length : quote));
}

#endif
