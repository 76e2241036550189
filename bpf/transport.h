/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Packets of any transport, read and forwarded: SCTP has another checksum than TCP and
 * UDP, over its ports but no addresses; AH and ESP have neither ports nor checksum.
 */
#ifndef XLVS_TRANSPORT_H
#define XLVS_TRANSPORT_H

#include "crc32c.h"
#include "related.h"
#include "sctp.h"
#include "forward/dr.h"
#include "forward/nat.h"

/*
 * Read on behind the IP header, where a transport other than TCP and UDP begins; false for
 * what only the kernel knows. *behind: as parse_sctp says.
 */
static __always_inline bool parse_other(void *data, void *end, struct packet *p, __u32 *behind)
{
	*behind = 0;
	return is_ipsec(p->protocol) ||
	       (p->protocol == IPPROTO_SCTP && parse_sctp(data, end, p, behind));
}

static __always_inline struct sctp_header *sctp_of(struct xdp_md *ctx, const struct packet *p)
{
	struct sctp_header *header = data_of(ctx) + l4_of(p);

	return (void *)(header + 1) > end_of(ctx) ? 0 : header;
}

/* Compute the checksum of an SCTP packet, whose check field is 0. */
static __always_inline bool sctp_write_check(struct xdp_md *ctx, const struct packet *p)
{
	__u32 check = crc32c_range(ctx, p->l4, l4_length(p));
	struct sctp_header *header = sctp_of(ctx, p);

	if (!header)
		return false;
	header->check = check;
	return true;
}

/* As complete_checksum: a check field of 0 is one that the sender left to the hardware. */
static __always_inline bool sctp_complete(struct xdp_md *ctx, const struct packet *p)
{
	struct sctp_header *header = sctp_of(ctx, p);

	return header && (header->check || sctp_write_check(ctx, p));
}

static __always_inline bool pass_on_any(struct xdp_md *ctx, const struct packet *p)
{
	if (is_plain(p->protocol))
		return pass_on(ctx, p);
	if (p->protocol == IPPROTO_SCTP && !sctp_complete(ctx, p))
		return false;
	return decrement_ttl(data_of(ctx), end_of(ctx), p);
}

/* The checksum moves by what the ports do, so a wrong one stays wrong. */
static __always_inline bool translate_sctp(struct xdp_md *ctx, const struct packet *p,
					   const struct translation *t)
{
	struct sctp_header *header = sctp_of(ctx, p);
	__be32 change, *ports = (__be32 *)header;

	if (!header)
		return false;
	change = ports_of(&t->sport) ^ *ports;
	*ports = ports_of(&t->sport);
	if (!header->check)
		return sctp_write_check(ctx, p);
	if (change)
		header->check ^= crc32c_change(change, l4_length(p));
	return true;
}

/* As translate, which does it for TCP and UDP. A global function: verified once. */
__noinline int translate_any(struct xdp_md *ctx, const struct packet *p,
			     const struct translation *t, __u32 ttl_step)
{
	if (!p || !t)
		return false;
	if (is_plain(p->protocol))
		return translate(ctx, p, t, ttl_step);
	if (!translate_ip(data_of(ctx), end_of(ctx), p, t, ttl_step))
		return false;
	return p->protocol != IPPROTO_SCTP || translate_sctp(ctx, p, t);
}

#endif
