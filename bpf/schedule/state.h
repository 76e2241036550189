/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a scheduler keeps while it chooses. In the CPU's scratch, not on the stack: its
 * walks are functions that call functions, and the 512 bytes are for all of them.
 */
#ifndef XLVS_SCHEDULE_STATE_H
#define XLVS_SCHEDULE_STATE_H

#include <stdbool.h>

#include <linux/types.h>

#include "../abi.h"

/* One traversal of wrr; see wrr_traverse. */
struct wrr_walk {
	__u32 last;   /* where the walk began: position + 1, 0 for the head */
	__u32 after;  /* where this traversal begins */
	__u32 until;  /* where it ends */
	__u32 place;  /* where the next walk begins if nobody is found */
	__s32 weight; /* what it asks for */
	__s32 step;
	__s32 max;
	bool last_pass;
	bool restarted;
	bool stopping;
};

struct hash_walk {
	__u64 table;
	__u32 hash; /* the address and port, before the table's own hash */
	__u32 start;
	bool maglev;
};

/* One of the two that twos draws. */
struct draw {
	__s64 left; /* weight to pass before this one is drawn; drawn when not above 0 */
	__u64 load;
	__s64 weight;
	__u32 dest;
};

struct twos_walk {
	__s64 total;
	struct draw one, other;
};

/* What lc, wlc, sed, nq, fo and ovf go by: factors and masks. */
struct measure {
	__u32 active;
	__u32 inactive;
	__u32 one_more;
	__u32 weight;
	__u32 no_weight;
	__u32 overflow;
	__u32 not_idle;
	__u32 unable; /* load.flags of those who may not be chosen */
};

struct choice {
	__u32 first; /* row of the first member */
	__u32 count;
	__u32 dest;	 /* the answer: row of dests, or NOBODY */
	__u32 at;	 /* its position */
	__u32 position;	 /* of the walk */
	__s32 floor;	 /* least weight that will do */
	__u32 scheduler; /* enum xlvs_scheduler */
	bool thresholds; /* a destination may be overloaded */
	bool relief;	 /* lblc: somebody is at half its load */
	bool present;	 /* lblcr: the choice is in the set already */
	__u32 leaving;	 /* lblcr: who leaves the set, or NOBODY */
	__u32 kept;	 /* lblcr: how many stay */
	struct measure measure;
	__u64 best_load;
	__s64 best_weight;
	union {
		struct wrr_walk wrr;
		struct hash_walk hashed;
		struct twos_walk twos;
		struct xlvs_locality locality; /* the entry to be */
	};
};

#endif
