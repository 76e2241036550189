/* SPDX-License-Identifier: GPL-2.0-only */
/* What operators enter: services, destinations, marks; and what is counted for them. */
#ifndef XLVS_ABI_RULES_H
#define XLVS_ABI_RULES_H

#include <linux/types.h>

#include "hop.h"

/* Limits of the rule tables; the connection table is sized at `up`. */
#define XLVS_SERVICES	    8192
#define XLVS_DESTS	    32768
#define XLVS_MEMBERS	    (1 << 20)
#define XLVS_LOCALS	    (1 << 17) /* local addresses of all services */
#define XLVS_BUCKETS	    (1 << 22) /* of sh's, dh's and mh's tables */
#define XLVS_LOCALITIES	    (1 << 17) /* what lblc and lblcr remember, of all services */
#define XLVS_LOCALITY_DESTS 64	      /* servers of a set of lblcr's; a power of two */
#define XLVS_PORTS	    256
#define XLVS_MARK_RULES	    (1 << 16)
#define XLVS_MARK_PREFIXES  4096
#define XLVS_CLIENTS	    (1 << 20) /* prefixes in the lists of all services */
#define XLVS_SOURCES	    (1 << 17) /* clients whose limits are kept, the least used go first */

/*
 * Rows of `counters` and `rates`: services, then destinations. `counters` has all
 * rows once for each possible CPU.
 */
#define XLVS_ROW_SERVICE 0
#define XLVS_ROW_DEST	 (XLVS_ROW_SERVICE + XLVS_SERVICES)
#define XLVS_ROWS	 (XLVS_ROW_DEST + XLVS_DESTS)

enum xlvs_family { XLVS_IPV4 = 2, XLVS_IPV6 = 10 };

/* Forwarding methods, numbered as IP_VS_CONN_F_* of linux/ip_vs.h. */
enum xlvs_forward {
	XLVS_MASQ = 0,
	XLVS_TUNNEL = 2,
	XLVS_ROUTE = 3,
	XLVS_BYPASS = 4, /* to where the client wanted: cache_bypass */
	XLVS_FULLNAT = 5,
};

/* Encapsulations of TUN, and flags of GUE and GRE, numbered as in linux/ip_vs.h. */
enum xlvs_tunnel { XLVS_IPIP, XLVS_GUE, XLVS_GRE };
#define XLVS_TUNNEL_CSUM    1
#define XLVS_TUNNEL_REMCSUM 2

enum xlvs_scheduler {
	XLVS_RR,
	XLVS_WRR,
	XLVS_LC,
	XLVS_WLC,
	XLVS_LBLC,
	XLVS_LBLCR,
	XLVS_DH,
	XLVS_SH,
	XLVS_SED,
	XLVS_NQ,
	XLVS_FO,
	XLVS_OVF,
	XLVS_MH,
	XLVS_TWOS,
	XLVS_NONE, /* a service whose scheduler was taken away serves nobody */
	XLVS_SCHEDULERS,
};

/* Persistence engines. */
enum xlvs_engine { XLVS_NO_ENGINE, XLVS_SIP };

/* SYNPROXY (ipvsadm -j): who answers a client's SYN. */
enum xlvs_synproxy {
	XLVS_SYNPROXY_OFF,
	XLVS_SYNPROXY_ALWAYS,
	XLVS_SYNPROXY_AUTO, /* the director while SYNs come faster than sysctl synproxy_rate */
};

/* How NAT's and FULLNAT's real servers learn the client's address. */
enum xlvs_client_address { XLVS_TELL_NOBODY, XLVS_TELL_TOA, XLVS_TELL_PROXY };

/* A service by mark: the mark in the first four bytes, port and protocol 0. */
struct xlvs_service_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 family;
};

/* service.flags are IP_VS_SVC_F_* of linux/ip_vs.h, and some of ours. */
#define XLVS_SERVICE_PERSISTENT	   0x1u
#define XLVS_SERVICE_ONEPACKET	   0x4u
#define XLVS_SERVICE_SCHED1	   0x8u
#define XLVS_SERVICE_SCHED2	   0x10u
#define XLVS_SERVICE_SCHED3	   0x20u
#define XLVS_SERVICE_IPVS	   0xffffu     /* those of linux/ip_vs.h */
#define XLVS_SERVICE_LISTED	   0x10000000u /* has lists of clients to allow or deny */
#define XLVS_SERVICE_LISTED_ALWAYS 0x08000000u /* ... who are looked up for every packet */
#define XLVS_SERVICE_FULLNAT	   0x04000000u /* a destination is reached so */
#define XLVS_SERVICE_TELLS	   0x20000000u /* client_address was chosen, not the methods' default */
#define XLVS_SERVICE_THRESHOLDS	   0x40000000u /* a destination has one, or had */
#define XLVS_SERVICE_USED	   0x80000000u

struct xlvs_service {
	__u8 address[16];
	__u32 flags;
	__u32 fwmark;
	__be16 port;
	__u8 protocol;
	__u8 family;
	__u8 scheduler;
	__u8 engine;	     /* enum xlvs_engine */
	__u8 synproxy;	     /* enum xlvs_synproxy */
	__u8 client_address; /* enum xlvs_client_address */
	/* Destinations in IPVS's list order: first row of `members` | count << 32. */
	__u64 members;
	/* The scheduler's own table of destinations (sh, dh, mh): rows of `buckets`. */
	__u64 table;
	__u32 wrr_step; /* greatest common divisor of the weights */
	__s32 wrr_max;	/* greatest weight less (wrr_step - 1) */
	__u32 timeout;	/* persistence, seconds */
	__u32 netmask;	/* IPv4: as a number, IPv6: prefix length */
	/*
	 * Where rr and wrr stand: position in members + 1 (0: before the first) |
	 * current weight << 32. Changed by compare-and-swap, on a line of its own. Of lblc
	 * and lblcr: this row | a number that no scheduler before it had << 32.
	 */
	__u64 mark __attribute__((aligned(64)));
	__u64 localities; /* entries of lblc and lblcr */
	/* FULLNAT's local addresses, IPv4 and IPv6: first row of `locals` | count << 32. */
	__u64 locals[2];
	/*
	 * What its servers' SYN-ACKs said last: MSS | (window scale + 1) << 16 | XLVS_OFFER_* |
	 * the scale told before that was known << XLVS_OFFER_BEFORE; 0: nothing yet.
	 */
	__u32 server_offer;
	__u32 syn_limit;     /* new connections a second at most; 0: no limit */
	__u32 source_limit;  /* of one client: an IPv4 address, an IPv6 network of 64 bits */
	__u32 offer_changed; /* when server_offer was, jiffies */
	/* SYNPROXY at need: SYNs of this second | its number << XLVS_SYNS_BITS. */
	__u32 syns;
	__u32 guarded_until; /* cookies are sent, jiffies */
	__u64 syn_bucket;    /* the time up to which syn_limit is used up, 2^32 to the second */
};

/* service.server_offer */
#define XLVS_OFFER_NO_SACK   0x1000000u
#define XLVS_OFFER_BEFORE    25
#define XLVS_OFFER_NO_STAMPS 0x20000000u
#define XLVS_OFFER_TURN	     0x80000000u /* turns with each change: cookies say it */

#define XLVS_SYNS_BITS 24

struct xlvs_local {
	__u8 address[16];
	__u64 conflicts; /* ports that were tried and taken */
};

struct xlvs_member {
	__u32 dest;
	__s32 weight;
};

/* Two buckets, rows of dests: the kernel rounds rows of an array up to eight bytes. */
struct xlvs_bucket_pair {
	__u32 dest[2];
};

/* Where lblc and lblcr sent connections to an address: a service's mark says whose. */
struct xlvs_locality_key {
	__u64 service;
	__u8 address[16];
};

struct xlvs_locality {
	__u32 used;	/* last time, jiffies */
	__u32 modified; /* when the set was changed last, jiffies */
	__u32 version;	/* settings.rules_version then */
	__u32 count;
	__u32 dests[XLVS_LOCALITY_DESTS]; /* the newest last */
};

/* dest.flags */
#define XLVS_DEST_USED	    1u
#define XLVS_DEST_AVAILABLE 2u /* in a service now; else kept for its connections */
#define XLVS_DEST_LOCAL	    4u /* an address of the director itself */
#define XLVS_DEST_SPECIAL   8u /* special program: other tunnels, lists for every packet */

struct xlvs_dest {
	__u8 address[16];
	__u8 source[16]; /* DIP: outer source of tunnels */
	__be16 port;
	__u8 family;
	__u8 forward;
	__u32 flags;
	__u32 service; /* row of its service, last one when deleted */
	__s32 weight;
	__u32 upper;
	__u32 lower;
	__u8 tunnel_type;
	__u8 tunnel_flags;
	__be16 tunnel_port;
	__s32 last_weight; /* the last that was not 0: mh's table goes by it */
	struct xlvs_hop hop __attribute__((aligned(64)));
	/* Its service's key: a destination added again finds what it left. */
	__u8 virtual_address[16];
	__be16 virtual_port;
	__u8 virtual_protocol;
	__u8 virtual_family;
	__u32 virtual_fwmark;
	__u32 deleted; /* when, CLOCK_MONOTONIC seconds */
	__u32 born;    /* settings.rules_version when the row became this destination's */
};

/* Connections of a destination; changed by atomic addition. */
struct xlvs_load {
	__u32 active;
	__u32 inactive;
	__u32 persistent;
	__u32 flags;
	__u32 half_open; /* SYNPROXY: SYNs sent to it and not answered yet */
	__u32 pad[11];
};

/* load.flags */
#define XLVS_LOAD_OVERLOADED \
	1u /* upper was reached, and lower not yet again (IP_VS_DEST_F_OVERLOAD) */

struct xlvs_counters {
	__u64 connections;
	__u64 in_packets;
	__u64 out_packets;
	__u64 in_bytes;
	__u64 out_bytes;
	__u64 over_limit; /* of a service: packets refused by its limits */
	__u64 over_source_limit;
	__u64 syns; /* of a service: not yet added to service.syns */
};

/*
 * The kernel's estimator (net/netfilter/ipvs/ip_vs_est.c): every two seconds the
 * average moves a quarter of the way; packets scaled by 2^10, bytes by 2^5.
 */
struct xlvs_rate {
	__u64 last[5]; /* counters at the last step, in their order */
	__u64 average[5];
	__u64 zero[5]; /* counters when last zeroed: listings subtract them */
	__u64 pad;
};

/*
 * Marks: the longest prefix of the destination names a stretch of mark_rules (first |
 * count << 32) with all rules that apply there, in order; the last match gives the mark.
 */
struct xlvs_mark_prefix {
	__u32 bits; /* 32 more than of the address */
	__u8 family;
	__u8 pad[3];
	__u8 address[16];
};

struct xlvs_mark_rule {
	__u32 mark;
	__u16 first_port; /* host order, both inclusive */
	__u16 last_port;
	__u8 protocol; /* 0: any */
	/* User space's notes: the operator's list is read back from these rows. */
	__u8 bits; /* of the rule's own prefix */
	__u8 pad[2];
	__u32 number; /* in the list */
};

/*
 * Clients of a service that are allowed or denied: the longest prefix decides, those of none
 * are allowed. Where an allow list is to deny all others, user space puts in a prefix of no
 * bits (XLVS_CLIENT_OTHERS).
 */
enum xlvs_client_verdict { XLVS_CLIENT_DENY, XLVS_CLIENT_ALLOW, XLVS_CLIENT_OTHERS };

struct xlvs_client_prefix {
	__u32 bits;    /* 32 more than of the address */
	__u32 service; /* row */
	__u8 address[16];
};

struct xlvs_client {
	__u32 verdict;
	__u32 pad;
	__u64 packets; /* that this prefix decided on */
};

/* Whose limit of new connections is kept: an IPv4 address, or 64 bits of an IPv6 one. */
struct xlvs_source {
	__u32 service; /* row */
	__u32 family;
	__u8 network[8];
};

#endif
