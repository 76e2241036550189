/* SPDX-License-Identifier: GPL-2.0-only */
/* What the editor of TCP's options (tcp_options.h) keeps in the CPU's scratch. */
#ifndef XLVS_OPTION_STATE_H
#define XLVS_OPTION_STATE_H

#include <stdbool.h>
#include <linux/types.h>

#define TCP_OPTIONS  40 /* the most bytes of them that a header has room for */
#define OPTION_PLACE 63 /* mask: places in these arrays */

struct option_edit {
	/* Zeros behind the last one: the sum is the same. */
	__u8 was[OPTION_PLACE + 9] __attribute__((aligned(8)));
	__u8 is[OPTION_PLACE + 9] __attribute__((aligned(8)));
	__u8 made[OPTION_PLACE + 9]
		__attribute__((aligned(8))); /* anew, with the client's address */
	__u32 length;
	__u32 next; /* where the next option begins */
	/* What the walk is to do: */
	bool strip; /* the client's address: only the director says it */
	bool no_timestamps;
	bool no_fast_open;
	bool no_sack;
	__u8 toa_kind;
	__u8 claim;	/* of an IP header's options: which one goes; 0: none */
	__u16 mss_most; /* 0: whatever it is */
	__u16 mss_less; /* than that, or than the packet's own */
	/* What it found: */
	bool blank;   /* the present option goes */
	__u32 kept;   /* bytes of options that stay, without padding */
	__u32 stamp;  /* of which timestamps, */
	__u32 stamps; /* where these begin; 0: there are none; and ... */
	__u32 sack;   /* where selective acknowledgements begin; 0: there are none */
	__u32 blocks;
	/* Packing what stays: */
	__u32 out;   /* bytes written */
	__u32 stop;  /* where the present option is left off */
	__u32 room;  /* for selective acknowledgements */
	bool others; /* there is room for all that stays */
};

#endif
