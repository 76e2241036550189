/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the reader of SIP's text keeps in the CPU's scratch. Not on the stack: 6.1's verifier
 * takes what one round of a bpf_loop leaves there for what all rounds leave, and removes
 * the code behind the loop that it then believes to be unreachable.
 */
#ifndef XLVS_SIP_STATE_H
#define XLVS_SIP_STATE_H

#include <linux/types.h>

struct sip_walk {
	__u32 length;
	__u32 place;
	__u32 matched; /* letters of the name so far */
	__u32 start;   /* of the value */
	__u32 end;
	__u32 domain; /* where the word after the at sign begins, 0 before that */
	__u64 hash;
};

#endif
