/* SPDX-License-Identifier: GPL-2.0-only */
/* From the fast path to the programs of what is rare. */
#ifndef XLVS_LEAVE_H
#define XLVS_LEAVE_H

#include "outcome.h"

static __always_inline bool is_icmp(const struct packet *p)
{
	return p->protocol == (p->family == XLVS_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

/*
 * A packet of no service: the kernel's, unless real servers are to be told that nobody
 * knows their packets (nat_icmp_send), which the ICMP program does.
 */
static __always_inline int not_ours(struct xdp_md *ctx, const struct xlvs_settings *set)
{
	if (unlikely(set->sysctl.nat_icmp_send))
		bpf_tail_call(ctx, &programs, XLVS_PROG_ICMP);
	return pass_as(XLVS_NOT_OURS);
}

/* A packet that the fast path does not read to the end. */
static __always_inline int leave_fast_path(struct xdp_md *ctx, enum parsed what,
					   const struct packet *p)
{
	__u32 program = XLVS_PROG_SPECIAL;

	if (what == PARSED_OTHER || what == PARSED_MALFORMED)
		return pass_as(XLVS_NOT_OURS);
	if (what == PARSED_FRAGMENT || what == PARSED_EXTENSION)
		program = XLVS_PROG_FRAGMENT;
	else if (what == PARSED_PROTOCOL && is_icmp(p))
		program = XLVS_PROG_ICMP;
	bpf_tail_call(ctx, &programs, program);
	return drop_as(XLVS_DROP_RACE);
}

#endif
