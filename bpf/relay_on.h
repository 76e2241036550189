/* SPDX-License-Identifier: GPL-2.0-only */
/* To the relay program, with the packet that stands in the scratch. */
#ifndef XLVS_RELAY_ON_H
#define XLVS_RELAY_ON_H

#include "conn.h"
#include "outcome.h"

static __always_inline int relay_on(struct xdp_md *ctx, struct xlvs_scratch *notes,
				    const struct flow *flow, enum relay kind, __u32 bytes,
				    bool once)
{
	notes->relayed.kind = kind;
	notes->relayed.packets = kind != RELAY_LATER;
	notes->relayed.bytes = bytes;
	notes->relayed.ref = flow->ref;
	notes->relayed.generation = flow->generation;
	notes->relayed.once = once;
	bpf_tail_call(ctx, &programs, XLVS_PROG_RELAY);
	return drop_as(XLVS_DROP_RACE);
}

#endif
