/* SPDX-License-Identifier: GPL-2.0-only */
/* Network devices, and ways out through them. */
#ifndef XLVS_ABI_HOP_H
#define XLVS_ABI_HOP_H

#include <linux/types.h>

/* Where the packet leaves: a cached answer of bpf_fib_lookup. */
#define XLVS_HOP_COMPANION_NEIGHBOUR 1u /* neighbour unknown: the companion resolves it */
#define XLVS_HOP_COMPANION_DEVICE    2u /* device cannot transmit from XDP */
#define XLVS_HOP_TX		     4u /* out of the device it came in by, XDP_TX may be used */
#define XLVS_HOP_TAGS_SHIFT	     4	/* two bits: VLAN tags to push */

struct xlvs_hop {
	__u32 seq; /* odd while being written, 0 when never filled */
	__u32 ifindex;
	__u8 dmac[6];
	__u8 smac[6];
	__u16 mtu;
	__u16 flags;
	__u32 checked; /* when the answer was fetched */
	__u16 vlan[2]; /* tags to push, outer first, wire order */
} __attribute__((aligned(8)));

/* What ICMP said of the way to an address: a router on it takes no longer packets. */
#define XLVS_PATHS 4096

struct xlvs_path_mtu {
	__u32 mtu;
	__u32 until; /* jiffies */
};

/* Network devices: what XDP may transmit to, and VLAN devices' parents. */
#define XLVS_PORT_XDP	  1u /* transmit works */
#define XLVS_PORT_GENERIC 2u /* XDP runs on skbs: they may be unsegmented */
#define XLVS_PORT_TX	  8u /* XDP_TX leaves at once (on veth it may lie about) */
#define XLVS_PORT_CLSACT  4u /* its clsact qdisc is ours to remove */

struct xlvs_port {
	__u32 flags;
	__u32 parent;  /* device that carries a VLAN device, else 0 */
	__u16 vlan[2]; /* its tags, outer first, wire order */
	__u16 tags;
	__u16 mtu; /* what one packet on the wire cannot exceed */
};

#endif
