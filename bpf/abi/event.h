/* SPDX-License-Identifier: GPL-2.0-only */
/* What the data plane tells the slow-path helper, through the ring buffer `events`. */
#ifndef XLVS_ABI_EVENT_H
#define XLVS_ABI_EVENT_H

#include <linux/types.h>

#define XLVS_EVENTS_SIZE (1 << 20) /* bytes */
/*
 * Longest frame that an event carries: the longest that the helper can give back, for
 * BPF_PROG_TEST_RUN keeps a frame and its bookkeeping within one page.
 */
#define XLVS_EVENT_FRAME 3392
#define XLVS_EVENT_SHORT 192 /* frames up to this take less room in the ring */

enum xlvs_event_kind {
	XLVS_EVENT_EARLY, /* a fragment that came before its first */
	XLVS_EVENT_FIRST, /* the first one came: of the datagram whose key takes the frame's place */
	XLVS_EVENT_SPLIT, /* a packet that must go on in fragments of at most value bytes */
	/* A connection that time ended, both ends of which believe in it: it takes the frame's place. */
	XLVS_EVENT_EXPIRED,
	XLVS_EVENT_UNANSWERED, /* SYNPROXY's SYN: to be repeated, or the client to be reset */
	XLVS_EVENT_HELD,       /* payload that came before the real server's SYN-ACK ... */
	XLVS_EVENT_ANSWERED,   /* ... which has come: it may go on */
	XLVS_EVENT_KINDS,
};

/* Its frame follows: length bytes as XDP saw them, from the link header on. */
struct xlvs_event {
	__u32 kind;
	__u32 ifindex; /* device that the frame came in by */
	__u32 slot;    /* its connection, with its phase word; or 0 and 0 */
	__u32 phase;
	__u32 length;
	__u32 value;
};

#endif
