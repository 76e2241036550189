/* SPDX-License-Identifier: GPL-2.0-only */
/* Fragments: what the first one of a datagram says about the others. */
#ifndef XLVS_ABI_FRAGMENT_H
#define XLVS_ABI_FRAGMENT_H

#include <linux/types.h>

#define XLVS_DATAGRAMS 32768 /* remembered at a time, the least used go first */
#define XLVS_WAITING   4096  /* datagrams whose fragments the helper holds */
#define XLVS_ADDRESSES (1 << 16)

/* A datagram (RFC 791, 3.2; RFC 8200, 4.5: there without the protocol, which is 0). */
struct xlvs_datagram_key {
	__u8 saddr[16];
	__u8 daddr[16];
	__be32 id; /* IPv4: in its first two bytes */
	__u8 protocol;
	__u8 family;
	__u8 pad[2];
};

/* datagram.kind */
enum xlvs_datagram_kind {
	XLVS_DATAGRAM_FLOW,   /* of the connection in slot ref (with its direction) */
	XLVS_DATAGRAM_KERNEL, /* of no service */
	XLVS_DATAGRAM_BROKEN, /* two first fragments that differ */
};

struct xlvs_datagram {
	__u32 kind;
	__u32 ref;
	__u32 generation; /* of the slot */
	__u32 seen;	  /* when the first fragment came, jiffies */
	__be32 ports;
};

/*
 * Addresses that fragments may be for, with port and protocol 0; and ports of real servers
 * under NAT, with their row of dests: they are told when nobody knows their packet
 * (nat_icmp_send). A service by mark has servers of any protocol: 0. Of two services' rows
 * for a port, one that may begin a conversation stands here.
 */
#define XLVS_ADDRESS_VIRTUAL 1u
#define XLVS_ADDRESS_REAL    2u
#define XLVS_ADDRESS_CALLER  4u /* may begin a conversation (sip) */
#define XLVS_ADDRESS_ROW     8	/* where the row begins */

#endif
