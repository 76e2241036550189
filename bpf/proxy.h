/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt): a header in front of the
 * client's payload tells who the client is. It goes with the first segment of the client's that
 * opens the connection, and with all others that begin at the same place until the server has
 * acknowledged all of it, for nobody else would repeat it. conn.seq_in counts it from the
 * beginning; what is in front of it is numbered back here.
 */
#ifndef XLVS_PROXY_H
#define XLVS_PROXY_H

#include "conn.h"
#include "insert.h"
#include "tcp_options.h"

#define PROXY_LONGEST 52	  /* proxy_size of IPv6 */
#define PROXY_COMMAND 0x21000000u /* version 2, PROXY */
#define PROXY_TCP4    (0x110000u | 12)
#define PROXY_TCP6    (0x210000u | 36)

/* Write the header; to has room for the longest, and zeros in it. */
static __always_inline void proxy_write(__u8 *to, const struct xlvs_conn *conn)
{
	__be32 *words = (__be32 *)to;
	bool ipv4 = conn->family == XLVS_IPV4;

	words[0] = bpf_htonl(0x0d0a0d0a); /* the signature */
	words[1] = bpf_htonl(0x000d0a51);
	words[2] = bpf_htonl(0x5549540a);
	words[3] = bpf_htonl(PROXY_COMMAND | (ipv4 ? PROXY_TCP4 : PROXY_TCP6));
	if (ipv4) {
		words[4] = *(const __be32 *)conn->caddr;
		words[5] = *(const __be32 *)conn->vaddr;
		words[6] = ports_of(&conn->cport);
	} else {
		copy_address(to + 16, conn->caddr);
		copy_address(to + 32, conn->vaddr);
		words[12] = ports_of(&conn->cport);
	}
}

/* Write the header to a place in the frame that is there. */
static __always_inline bool proxy_store(struct xdp_md *ctx, __u32 at, __u32 size,
					struct xlvs_scratch *notes)
{
	return !bpf_xdp_store_bytes(ctx, at, notes->edit.made, ((size - 1) & OPTION_PLACE) + 1);
}

/* Put the header in front of a segment's payload, which begins at a place in the frame. */
static __always_inline bool proxy_insert(struct xdp_md *ctx, struct packet *p, __u32 at, __u32 size,
					 struct xlvs_scratch *notes)
{
	struct tcp_change c = { .grown = size, .inserted = size };

	c.words = (at - l4_of(p)) / 4;
	c.new = csum_fold(bpf_csum_diff(0, 0, (__be32 *)notes->edit.made, PROXY_LONGEST, 0));
	return segment_grow(ctx, p, at, notes, &c) && proxy_store(ctx, at, size, notes);
}

/*
 * Where there is no room for both, the header goes alone: the client sends its payload again,
 * for nobody acknowledges it.
 */
static __always_inline enum xlvs_outcome proxy_alone(struct xdp_md *ctx, struct packet *p, __u32 at,
						     __u32 size, struct xlvs_scratch *notes)
{
	__u8 flags = p->tcp & ~(TCP_FIN | TCP_PSH);

	if (!segment_intact(ctx, p))
		return XLVS_DROP_MALFORMED;
	if (!payload_cut(ctx, p, at, size))
		return XLVS_DROP_TOO_BIG;
	if (!proxy_store(ctx, at, size, notes) ||
	    bpf_xdp_store_bytes(ctx, l4_of(p) + 13, &flags, sizeof(flags)) ||
	    !checksum_write(ctx, p, p->saddr, p->daddr))
		return XLVS_DROP_MALFORMED;
	p->tcp = flags;
	return XLVS_FORWARDED;
}

/* A SYN brings no payload: the header would have to be in front of it. */
static __always_inline enum xlvs_outcome proxy_empty_syn(struct xdp_md *ctx, struct packet *p,
							 __u32 at)
{
	if (!segment_intact(ctx, p) || !payload_cut(ctx, p, at, 0) ||
	    !checksum_write(ctx, p, p->saddr, p->daddr))
		return XLVS_DROP_MALFORMED;
	return XLVS_FORWARDED;
}

#endif
