/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The only contract between the data plane and user space: map keys and values,
 * enumerations, packet outcomes. src/xlvs/dataplane/layout.py mirrors it, and
 * tests/abi compares the two through BTF. A change of any size, offset or meaning
 * here raises XLVS_ABI: pinned maps of another number are never reused.
 *
 * Byte order: addresses and ports as on the wire; all else the host's. An IPv4
 * address lies in the first four bytes of its sixteen, the rest are zero. Machines are
 * little-endian (as user space takes them to be). Times
 * are jiffies, cut to 32 bits where kept.
 */
#ifndef XLVS_ABI_H
#define XLVS_ABI_H

#define XLVS_ABI 2

#include "abi/connection.h"
#include "abi/event.h"
#include "abi/fragment.h"
#include "abi/hop.h"
#include "abi/outcome.h"
#include "abi/rules.h"
#include "abi/settings.h"

/* What XDP writes before a packet that it hands to the tc companion. */
#define XLVS_META_MAGIC 0x786c7673u /* "xlvs" */

struct xlvs_meta {
	__u32 magic;
};

/* ... before a real server's SYN-ACK, of which SYNPROXY makes two packets. */
#define XLVS_ANSWER_MAGIC 0x786c7661u /* "xlva" */

/* ... before one that is ready to leave, but for its next hop towards target. */
#define XLVS_READY_MAGIC 0x786c7672u /* "xlvr" */

struct xlvs_ready {
	__u32 magic;
	__u8 family;
	__u8 from_source; /* routing goes by the packet's source, too */
	__u8 own;	  /* for the director itself */
	__u8 pad;
	__u8 target[16];
};

#endif
