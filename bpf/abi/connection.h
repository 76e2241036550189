/* SPDX-License-Identifier: GPL-2.0-only */
/* Connections: their slots, index and states. */
#ifndef XLVS_ABI_CONNECTION_H
#define XLVS_ABI_CONNECTION_H

#include <linux/types.h>

#include "hop.h"

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

/* SCTP states in the order of ipvsadm's names (include/net/ip_vs.h, ip_vs_sctp_states). */
enum xlvs_sctp_state {
	XLVS_SCTP_NONE,
	XLVS_SCTP_INIT1,
	XLVS_SCTP_INIT,
	XLVS_SCTP_COOKIE_SENT,
	XLVS_SCTP_COOKIE_REPLIED,
	XLVS_SCTP_COOKIE_WAIT,
	XLVS_SCTP_COOKIE,
	XLVS_SCTP_COOKIE_ECHOED,
	XLVS_SCTP_ESTABLISHED,
	XLVS_SCTP_SHUTDOWN_SENT,
	XLVS_SCTP_SHUTDOWN_RECEIVED,
	XLVS_SCTP_SHUTDOWN_ACK_SENT,
	XLVS_SCTP_REJECTED,
	XLVS_SCTP_CLOSED,
	XLVS_SCTP_STATES,
};

/* States of a persistence template (IP_VS_CTPL_S_*). */
enum xlvs_template_state { XLVS_TEMPLATE_NONE, XLVS_TEMPLATE_ASSURED };

/* Keys of the connection index: source, destination as in the packet. */
struct xlvs_key4 {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 kind;
	__u8 pad[2];
};

/* key.kind */
enum xlvs_key_kind {
	XLVS_KEY_CONN,
	XLVS_KEY_TEMPLATE,
	XLVS_KEY_ENGINE, /* template of a persistence engine: saddr is a hash of its data */
	XLVS_KEY_EXPECT, /* connection whose client port is not known yet (FTP) */
};

struct xlvs_key6 {
	__u8 saddr[16] __attribute__((aligned(8))); /* copied as words */
	__u8 daddr[16];
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 kind;
	__u8 pad[2];
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
#define XLVS_CONN_METHOD   0x7u
#define XLVS_CONN_LOCAL	   0x10u  /* destination on the director */
#define XLVS_CONN_OWN	   0x20u  /* client on the director */
#define XLVS_CONN_TEMPLATE 0x40u  /* persistence template: no packet's, but its followers' */
#define XLVS_CONN_ENGINE   0x80u  /* template of a persistence engine, its data in engine_data */
#define XLVS_CONN_NO_CPORT 0x100u /* the client's port is not known yet (FTP) */
#define XLVS_CONN_SPECIAL  0x200u /* forwarded by the special program */
#define XLVS_CONN_WATCHED  0x400u /* FTP control connection: somebody reads along */
/* Made for one packet: in no index. */
#define XLVS_CONN_ONE_PACKET 0x1000u
/* TCP at its beginning, when options are changed or put in: the opening program's. */
#define XLVS_CONN_OPENING      0x2000u
#define XLVS_CONN_TOA	       0x4000u /* the real server is told the client's address, by option */
#define XLVS_CONN_PROXY	       0x8000u /* ... or in front of the payload (PROXY protocol 2) */
#define XLVS_CONN_SYNPROXY     0x10000u	 /* the director answered the client's SYN itself */
#define XLVS_CONN_SHIFTED      0x20000u	 /* sequence numbers differ: seq_in, seq_out */
#define XLVS_CONN_HALF_OPEN    0x80000u	 /* ... and waits for its real server, counted there */
#define XLVS_CONN_OTHER_FAMILY 0x40000u	 /* the real server is of the other family */
#define XLVS_CONN_STAMPED      0x100000u /* timestamps are shifted, too: stamps.h */

/* conn.state: state | previous << 8 | flags << 16. */
#define XLVS_STATE_INACTIVE 0x10000u
#define XLVS_STATE_ENDED    0xffffffffu /* counted out: nobody moves it any more */

/* conn.older of SYNPROXY. */
#define XLVS_NO_SCALE	     15u
#define XLVS_OFFER_SACK	     0x100000u
#define XLVS_OFFER_STAMPS    0x200000u
#define XLVS_SERVER_UNSCALED 0x80000000u /* the client scales its windows, the server does not */

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
	__u8 laddr[16]; /* of NAT by SYNPROXY: timestamps (stamps.h) */
	__be16 lport;
	__u8 server_family;
	__s8 window_shift; /* what the server's windows are shifted left by (SYNPROXY) */
	__u32 seq_in;	   /* added to the client's sequence numbers */
	__u32 seq_out;	   /* added to the server's sequence numbers behind seq_base ... */
	__u32 seq_base;	   /* ... seq_before is added up to it; of SYNPROXY: the cookie */
	/* What packets change. */
	__u32 phase;
	__u32 seen; /* when the last packet came, to within 250 ms */
	__u32 timeout;
	__u32 state;
	__u32 in_packets;
	__u32 fwmark;
	__u32 template_slot;  /* its template, or controlling connection ... */
	__u32 template_phase; /* ... of that generation; 0: none */
	__u32 controlled;     /* connections that hang on this template */
	__u32 synced;	      /* when last sent to the other directors */
	__u32 sync_packets;
	__u32 seq_before;
	/*
	 * Mode of the next data connection; << 8 of the last rewritten reply. Of SYNPROXY: SYNs
	 * sent to the real server | the client's window, as it said it, << 16.
	 */
	__u32 ftp;
	/*
	 * Slot + 1 that had its key (XLVS_KEY_EXPECT) before; 0: none. Of SYNPROXY: what was
	 * agreed with the client, MSS | its window scale << 16 | XLVS_OFFER_* | the director's
	 * window scale << 24 (both XLVS_NO_SCALE without) | XLVS_SERVER_UNSCALED.
	 */
	__u32 older;
	/*
	 * While OPENING: the initial sequence numbers of client and server, as each gave
	 * its own. Afterwards what each acknowledged last, as it did: where a reset is believed.
	 */
	__u32 edge_in;
	__u32 edge_out;
};

/* Data of a template's persistence engine (sip: the Call-ID), by slot. */
#define XLVS_ENGINE_DATA 255 /* IP_VS_PEDATA_MAXLEN */

struct xlvs_engine_data {
	__u8 length;
	__u8 text[XLVS_ENGINE_DATA];
};

#endif
