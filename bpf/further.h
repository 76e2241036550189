/* SPDX-License-Identifier: GPL-2.0-only */
/* Reading on in packets that the fast path leaves aside. */
#ifndef XLVS_FURTHER_H
#define XLVS_FURTHER_H

#include "special.h"
#include "walk.h"

/*
 * Read a packet to its transport header, whatever is in front of that, into the CPU's
 * scratch: an enum parsed. As parse_special, a global function: verified once.
 */
__noinline int parse_further(struct xdp_md *ctx)
{
	struct xlvs_scratch *notes = scratch_get();
	enum parsed what;
	struct packet *p;

	if (!notes)
		return PARSED_OTHER;
	p = &notes->packet;
	__builtin_memset(p, 0, sizeof(*p));
	__builtin_memset(&notes->fragment, 0, sizeof(notes->fragment));
	what = parse_xdp(ctx, p);
	if (what == PARSED_FRAGMENT || what == PARSED_EXTENSION)
		what = walk(ctx, p, &notes->fragment);
	if (what == PARSED_PROTOCOL && parse_transport(ctx, p))
		what = PARSED_FLOW;
	return what;
}

#endif
