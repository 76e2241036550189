/* SPDX-License-Identifier: GPL-2.0-only */
/* Counting what became of each packet. */
#ifndef XLVS_OUTCOME_H
#define XLVS_OUTCOME_H

#include "maps.h"

static __always_inline void count(__u32 outcome)
{
	__u64 *counter = bpf_map_lookup_elem(&outcomes, &outcome);

	if (counter)
		*counter += 1;
}

static __always_inline int pass_as(enum xlvs_outcome outcome)
{
	count(outcome);
	return XDP_PASS;
}

static __always_inline int drop_as(enum xlvs_outcome outcome)
{
	count(outcome);
	return XDP_DROP;
}

#endif
