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

#include <linux/types.h>

#define XLVS_ABI 1

/* Limits of the rule tables; the connection table is sized at `up`. */
#define XLVS_SERVICES 8192
#define XLVS_DESTS    32768
#define XLVS_MEMBERS  (1 << 20)
#define XLVS_PORTS    256

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
};

enum xlvs_scheduler { XLVS_RR, XLVS_WRR, XLVS_WLC, XLVS_SH, XLVS_SCHEDULERS };

/* TCP states in the order of ipvsadm's names (include/net/ip_vs.h, ip_vs_tcp_states). */
enum xlvs_tcp_state {
	XLVS_TCP_NONE,
	XLVS_TCP_ESTABLISHED,
	XLVS_TCP_SYN_SENT,
	XLVS_TCP_SYN_RECV,
	XLVS_TCP_FIN_WAIT,
	XLVS_TCP_TIME_WAIT,
	XLVS_TCP_CLOSE,
	XLVS_TCP_CLOSE_WAIT,
	XLVS_TCP_LAST_ACK,
	XLVS_TCP_LISTEN,
	XLVS_TCP_SYNACK,
	XLVS_TCP_STATES,
};

/*
 * What became of a packet. Every packet that enters gets exactly one outcome, save
 * that HANDED_* packets get a second one from the tc companion.
 */
#define XLVS_OUTCOMES(X)                                                                 \
	X(FORWARDED, "forwarded by XDP")                                                 \
	X(FORWARDED_TC, "forwarded by the tc companion")                                 \
	X(LOCAL, "delivered to the director itself")                                     \
	X(NOT_OURS, "of no service: left to the kernel")                                 \
	X(PASS_FRAGMENT, "fragment: left to the kernel")                                 \
	X(PASS_EXTENSION, "IPv6 extension header: left to the kernel")                   \
	X(PASS_NO_CONNECTION, "for a service, but of no connection: left to the kernel") \
	X(HANDED_NEIGHBOUR, "handed to the tc companion: neighbour not resolved")        \
	X(HANDED_DEVICE, "handed to the tc companion: device without XDP transmit")      \
	X(HANDED_SEGMENTS, "handed to the tc companion: segments not cut yet (GSO)")     \
	X(HANDED_OWN, "handed to the tc companion: the director's own connection")       \
	X(DROP_NO_DESTINATION, "no destination available: ICMP unreachable sent")        \
	X(DROP_DESTINATION_GONE, "destination of the connection was deleted")            \
	X(DROP_TABLE_FULL, "connection table full")                                      \
	X(DROP_RACE, "connection being replaced by another CPU")                         \
	X(DROP_TOO_BIG, "larger than the path's MTU: ICMP sent")                         \
	X(DROP_TTL, "TTL or hop limit exceeded: ICMP sent")                              \
	X(DROP_ERROR_LIMITED, "ICMP error due, but over the rate limit")                 \
	X(DROP_NO_ROUTE, "no route to the next hop")                                     \
	X(DROP_FORWARDING_OFF, "the kernel's forwarding is disabled")                    \
	X(DROP_NO_METADATA, "driver cannot hand packets to the tc companion")            \
	X(DROP_MALFORMED, "malformed packet")                                            \
	X(DROP_MIGRATING, "held back while tables or modes change: to be sent again")    \
	X(DROP_COMPANION, "tc companion could not forward")

enum xlvs_outcome {
#define X(name, text) XLVS_##name,
	XLVS_OUTCOMES(X)
#undef X
		XLVS_OUTCOME_COUNT,
};

/* Programs of one generation, reached by tail calls. */
enum xlvs_program { XLVS_PROG_KNOWN, XLVS_PROG_NEW, XLVS_PROG_ERROR, XLVS_PROGRAMS };

/* settings.flags */
#define XLVS_MIGRATING 1u /* tables are being replaced: unknown TCP waits for a resend */
#define XLVS_HOLD      2u /* XDP is off an interface for a moment: its packets wait for a resend */

struct xlvs_settings {
	__u32 abi;
	__u32 flags;
	__u32 hz; /* jiffies a second */
	__u32 pad;
	__u32 tcp_timeout[16]; /* by state, jiffies */
	__u32 udp_timeout;     /* jiffies */
	__u32 icmp_limit;      /* ICMP errors a second and CPU */
	__u32 scan_chunk;      /* slots that one tick of the timer looks at */
	__u32 tick_ns;	       /* between two ticks */
	__u32 scan_next;       /* where the next tick goes on */
	__u32 scan_rounds;     /* whole rounds made */
	__u32 rates_due;       /* jiffies of the next 2-second step of rates */
	__u32 rates_next;      /* 1 + row where the next tick goes on, 0 between two steps */
	__u32 hash_seed;       /* so that nobody outside can aim at slots */
	__u32 cpus;	       /* possible CPUs: blocks of rows in counters */
	__u32 now;	       /* written by every tick */
	/* User space's notes: rows used so far, where to look for free ones next. */
	__u32 services_high;
	__u32 dests_high;
	__u32 members_next;
	__u32 rules_version;  /* raised by every change of the rules */
	__u32 generation;     /* of the programs, raised by every `up` */
	__u32 tcp_seconds[3]; /* ipvsadm --set: tcp, tcpfin, udp, as entered */
	__u32 slots;	      /* table size asked for, kept while the plane is down */
	__u32 reserved[21];
};

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

struct xlvs_service_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 family;
};

/* service.flags are IP_VS_SVC_F_* of linux/ip_vs.h, and one of ours. */
#define XLVS_SERVICE_USED 0x80000000u

struct xlvs_service {
	__u8 address[16];
	__u32 flags;
	__u32 fwmark;
	__be16 port;
	__u8 protocol;
	__u8 family;
	__u8 scheduler;
	__u8 pad[3];
	/* Destinations in IPVS's list order: first row of `members` | count << 32. */
	__u64 members;
	/* The scheduler's own table (sh: 256 rows), the same way. */
	__u64 table;
	__u32 wrr_step; /* greatest common divisor of the weights */
	__s32 wrr_max;	/* greatest weight less (wrr_step - 1) */
	__u32 timeout;	/* persistence, seconds */
	__u32 netmask;
	/*
	 * Where rr and wrr stand: position in members + 1 (0: before the first) |
	 * current weight << 32. Changed by compare-and-swap, on a line of its own.
	 */
	__u64 mark __attribute__((aligned(64)));
	__u64 pad2[7];
};

struct xlvs_member {
	__u32 dest;
	__s32 weight;
};

/* dest.flags */
#define XLVS_DEST_USED	    1u
#define XLVS_DEST_AVAILABLE 2u /* in a service now; else kept for its connections */
#define XLVS_DEST_LOCAL	    4u /* an address of the director itself */

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
	__u32 pad;
	struct xlvs_hop hop __attribute__((aligned(64)));
	/* Its service's key: a destination added again finds what it left. */
	__u8 virtual_address[16];
	__be16 virtual_port;
	__u8 virtual_protocol;
	__u8 virtual_family;
	__u32 virtual_fwmark;
	__u32 deleted; /* when, CLOCK_MONOTONIC seconds */
	__u32 pad2;
};

/* Connections of a destination; changed by atomic addition. */
struct xlvs_load {
	__u32 active;
	__u32 inactive;
	__u32 persistent;
	__u32 pad[13];
};

struct xlvs_counters {
	__u64 connections;
	__u64 in_packets;
	__u64 out_packets;
	__u64 in_bytes;
	__u64 out_bytes;
	__u64 pad[3];
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

/* Keys of the connection index: source, destination as in the packet. */
struct xlvs_key4 {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 pad[3];
};

struct xlvs_key6 {
	__u8 saddr[16] __attribute__((aligned(8))); /* copied as words */
	__u8 daddr[16];
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 pad[3];
};

/* Index values: the slot, and whether the key is that of the way back. */
#define XLVS_REF_REPLY 0x80000000u
#define XLVS_REF_SLOT  0x7fffffffu

/* Slot phases (low two bits of conn.phase; the rest is the generation). */
#define XLVS_FREE	0u
#define XLVS_CLAIMED	1u
#define XLVS_LIVE	2u
#define XLVS_DYING	3u
#define XLVS_PHASE	3u
#define XLVS_GENERATION 4u /* added each time a slot is freed */

/* conn.flags: the forwarding method in the low bits (IP_VS_CONN_F_FWD_MASK). */
#define XLVS_CONN_METHOD 0x7u
#define XLVS_CONN_LOCAL	 0x10u /* destination on the director */
#define XLVS_CONN_OWN	 0x20u /* client on the director */

/* conn.state: state | previous << 8 | flags << 16. */
#define XLVS_STATE_INACTIVE 0x10000u
#define XLVS_STATE_ENDED    0xffffffffu /* counted out: nobody moves it any more */

struct xlvs_conn {
	/* What never changes in a connection's life. */
	__u8 caddr[16];
	__u8 vaddr[16];
	__u8 daddr[16];
	__be16 cport;
	__be16 vport;
	__be16 dport;
	__u8 protocol;
	__u8 family;
	__u32 dest;
	__u32 flags;
	/* The way back, and FULLNAT's part. */
	struct xlvs_hop back;
	__u8 laddr[16];
	__be16 lport;
	__u16 pad;
	__u32 seq_in;
	__u32 seq_out;
	__u32 seq_base;
	/* What packets change. */
	__u32 phase;
	__u32 seen; /* when the last packet came, to within 250 ms */
	__u32 timeout;
	__u32 state;
	__u32 in_packets;
	__u32 fwmark;
	__u32 template_slot;
	__u32 template_phase;
	__u32 controlled; /* connections that hang on this template */
	__u32 synced;	  /* when last sent to the other directors */
	__u32 sync_packets;
	__u32 pad2[5];
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

/* What XDP writes before a packet that it hands to the tc companion. */
#define XLVS_META_MAGIC 0x786c7673u /* "xlvs" */

struct xlvs_meta {
	__u32 magic;
};

#endif
