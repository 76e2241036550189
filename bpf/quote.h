/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The packet that an ICMP error quotes: read, to find its connection, and translated as the
 * error itself is (ip_vs_nat_icmp of net/netfilter/ipvs/ip_vs_core.c: addresses and ports,
 * the IPv4 header's checksum, the ICMP checksum; the quoted transport checksum stays).
 */
#ifndef XLVS_QUOTE_H
#define XLVS_QUOTE_H

#include "forward/nat.h"
#include "walk.h"

#define IPV4_SOURCE 12 /* offsets in the IP headers, RFC 791 and RFC 8200 */
#define IPV4_TARGET 16
#define IPV4_CHECK  10
#define IPV6_SOURCE 8
#define IPV6_TARGET 24
#define IPV4_MOST   60 /* bytes of an IPv4 header */

/* The quoted IPv4 header's checksum with its address changed, computed anew like ip_send_check. */
static __always_inline bool quoted_check(struct xdp_md *ctx, const struct quote *q, __u16 *check)
{
	__u64 sum = 0;
	__u32 word;

	for (__u32 at = 0; at < IPV4_MOST; at += sizeof(word)) {
		if (at >= q->header)
			break;
		if (bpf_xdp_load_bytes(ctx, q->ip + at, &word, sizeof(word)))
			return false;
		sum += at == IPV4_CHECK - 2 ? word & bpf_htonl(0xffff0000) : word;
	}
	*check = ~csum_fold(sum);
	return true;
}

/* Replace size bytes (2, 4 or 16) at an even offset; what the sum of words lost and gained. */
static __always_inline bool replace(struct xdp_md *ctx, __u32 at, const void *value,
				    const __u32 size, __u64 *old, __u64 *new)
{
	__u32 before[4] = {};
	const __u32 *after = value;

	if (bpf_xdp_load_bytes(ctx, at, before, size) ||
	    bpf_xdp_store_bytes(ctx, at, (void *)value, size))
		return false;
	*old += before[0];
	*new += size == 2 ? *(const __u16 *)value : after[0];
	if (size == 16) {
		*old += (__u64)before[1] + before[2] + before[3];
		*new += (__u64)after[1] + after[2] + after[3];
	}
	return true;
}

/* One end of the quoted packet: its target, or its source. */
static __always_inline bool replace_end(struct xdp_md *ctx, const struct packet *p,
					const struct quote *q, const struct translation *t,
					bool target, __u64 *old, __u64 *new)
{
	const __u8 *address = target ? t->saddr : t->daddr;
	__be16 port = target ? t->sport : t->dport;

	if (!replace(ctx, q->l4 + (target ? 2 : 0), &port, sizeof(port), old, new))
		return false;
	if (p->family == XLVS_IPV6)
		return replace(ctx, q->ip + (target ? IPV6_TARGET : IPV6_SOURCE), address, 16, old,
			       new);
	return replace(ctx, q->ip + (target ? IPV4_TARGET : IPV4_SOURCE), address, 4, old, new);
}

/*
 * The quoted sequence number, or the acknowledgement behind it, if it is quoted. That packet
 * went the other way: what is added to the one here was added to the other there.
 */
static __always_inline bool replace_number(struct xdp_md *ctx, const struct quote *q, __u32 which,
					   __u32 added, __u64 *old, __u64 *new)
{
	__u32 at = q->l4 + 4 + which * 4;
	__be32 number;

	if (!added || which >= q->numbers)
		return true;
	if (bpf_xdp_load_bytes(ctx, at, &number, sizeof(number)))
		return false;
	number = bpf_htonl(bpf_ntohl(number) + added);
	return replace(ctx, at, &number, sizeof(number), old, new);
}

/*
 * Translate the quotation: where the error goes to the client (reply), the quoted target
 * was the server; where it goes to the server, the quoted source was the VIP. The other
 * end is the same on both sides, unless there is a local address.
 */
static __always_inline bool translate_quote(struct xdp_md *ctx, const struct packet *p,
					    const struct translation *t, const struct quote *q,
					    bool reply, bool local)
{
	__u64 old = 0, new = 0;
	__u16 check;

	if (!replace_end(ctx, p, q, t, reply, &old, &new) ||
	    (local && !replace_end(ctx, p, q, t, !reply, &old, &new)) ||
	    !replace_number(ctx, q, 0, t->acknowledged, &old, &new) ||
	    !replace_number(ctx, q, 1, t->sequence, &old, &new))
		return false;
	if (p->family == XLVS_IPV4 &&
	    (!quoted_check(ctx, q, &check) ||
	     !replace(ctx, q->ip + IPV4_CHECK, &check, sizeof(check), &old, &new)))
		return false;
	if (p->family == XLVS_IPV6) { /* the pseudo-header */
		old += sum_words(p->saddr, p->family) + sum_words(p->daddr, p->family);
		new += sum_words(t->saddr, p->family) + sum_words(t->daddr, p->family);
	}
	if (bpf_xdp_load_bytes(ctx, q->icmp + 2, &check, sizeof(check)))
		return false;
	check = csum_replace(check, old, new);
	return !bpf_xdp_store_bytes(ctx, q->icmp + 2, &check, sizeof(check));
}

static __always_inline bool read_quote4(struct xdp_md *ctx, __u32 end, struct quote *q,
					struct packet *about)
{
	struct iphdr ip;

	if (q->ip + sizeof(ip) > end || bpf_xdp_load_bytes(ctx, q->ip, &ip, sizeof(ip)))
		return false;
	if (ip.version != 4 || ip.ihl < 5 || ip.frag_off & bpf_htons(IP_OFFSET))
		return false;
	q->header = ip.ihl * 4;
	q->l4 = q->ip + q->header;
	q->dont_fragment = ip.frag_off & bpf_htons(IP_DONT_FRAGMENT);
	about->protocol = ip.protocol;
	*(__be32 *)about->saddr = ip.daddr;
	*(__be32 *)about->daddr = ip.saddr;
	return true;
}

static __always_inline bool read_quote6(struct xdp_md *ctx, __u32 end, struct quote *q,
					struct packet *about)
{
	struct packet quoted = { .l3 = q->ip, .length = end - q->ip, .family = XLVS_IPV6 };
	struct fragment f = {};
	struct ipv6hdr ip;

	if (q->ip + sizeof(ip) > end || bpf_xdp_load_bytes(ctx, q->ip, &ip, sizeof(ip)))
		return false;
	quoted.l4 = q->ip + sizeof(ip);
	quoted.protocol = ip.nexthdr;
	if (ip.version != 6 || walk_headers(ctx, &quoted, &f) != PARSED_FLOW || f.offset)
		return false;
	q->l4 = quoted.l4;
	q->dont_fragment = true;
	about->protocol = quoted.protocol;
	__builtin_memcpy(about->saddr, &ip.daddr, 16);
	__builtin_memcpy(about->daddr, &ip.saddr, 16);
	return true;
}

/*
 * Read the packet that begins at this offset in the one in the scratch, turned round:
 * notes->about has the addresses and ports of an answer to it, notes->quote says where it
 * is. 0 where it cannot belong to a connection; its protocol is 0 where it is no packet. A
 * global function: verified once.
 */
__noinline int read_quote(struct xdp_md *ctx, __u32 at, __u32 family)
{
	struct xlvs_scratch *notes = scratch_get();
	struct packet *about;
	struct quote *q;
	__be16 ports[2];
	__u32 end;

	if (!notes)
		return 0;
	about = &notes->about;
	q = &notes->quote;
	end = notes->packet.l3 + notes->packet.length;
	__builtin_memset(about, 0, sizeof(*about));
	about->family = family;
	q->ip = at;
	if (!(family == XLVS_IPV4 ? read_quote4(ctx, end, q, about)
				  : read_quote6(ctx, end, q, about)))
		return 0;
	if (about->protocol != IPPROTO_TCP && about->protocol != IPPROTO_UDP &&
	    about->protocol != IPPROTO_SCTP)
		return 0;
	if (q->l4 + sizeof(ports) > end || bpf_xdp_load_bytes(ctx, q->l4, ports, sizeof(ports)))
		return 0;
	about->sport = ports[1];
	about->dport = ports[0];
	q->numbers = 0;
	if (about->protocol == IPPROTO_TCP && q->l4 + 8 <= end)
		q->numbers = q->l4 + 12 <= end ? 2 : 1;
	return 1;
}

#endif
