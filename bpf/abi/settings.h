/* SPDX-License-Identifier: GPL-2.0-only */
/* One row of what holds for all: programs, sysctls, the helper's decisions, notes. */
#ifndef XLVS_ABI_SETTINGS_H
#define XLVS_ABI_SETTINGS_H

#include <linux/types.h>

/* Programs of one generation, reached by tail calls. */
enum xlvs_program {
	XLVS_PROG_KNOWN,
	XLVS_PROG_NEW,
	XLVS_PROG_ERROR,
	XLVS_PROG_SPECIAL,  /* what is rare: the fast path stays short */
	XLVS_PROG_FTP,	    /* control connections of FTP */
	XLVS_PROG_FRAGMENT, /* fragments, and IPv6 extension headers */
	XLVS_PROG_ICMP,
	XLVS_PROG_RELAY,    /* fragments, errors and extended packets on their way */
	XLVS_PROG_OPENING,  /* TCP's beginnings, and its options */
	XLVS_PROG_FAMILY,   /* from one family to the other */
	XLVS_PROG_SYNPROXY, /* clients' SYNs answered by cookies, and what comes of those */
	XLVS_PROG_PROXIED,  /* connections that wait for their real server's SYN-ACK */
	XLVS_PROGRAMS,
};

/* settings.flags */
#define XLVS_MIGRATING 1u /* tables are being replaced: unknown TCP waits for a resend */
#define XLVS_HOLD      2u /* XDP is off an interface for a moment: its packets wait for a resend */
/* What a packet without an exact service may still be for. */
#define XLVS_HAS_MARKS	 4u  /* a service by mark */
#define XLVS_HAS_FTP	 8u  /* a service of port 21: its data connections */
#define XLVS_HAS_PORT0	 16u /* a service of every port */
#define XLVS_HAS_CALLERS 32u /* a service whose servers may begin conversations (sip) */
#define XLVS_HAS_OTHERS	 (XLVS_HAS_MARKS | XLVS_HAS_FTP | XLVS_HAS_PORT0 | XLVS_HAS_CALLERS)

/*
 * IPVS's sysctls (Documentation/networking/ipvs-sysctl.rst) under their own names and
 * in their own units, as an operator wrote them.
 */
struct xlvs_sysctl {
	__s32 amemthresh;
	__s32 am_droprate;
	__s32 drop_entry;
	__s32 drop_packet;
	__s32 conntrack;
	__s32 secure_tcp;
	__s32 snat_reroute;
	__s32 sync_version;
	__s32 sync_ports;
	__s32 sync_persist_mode;
	__s32 sync_qlen_max;
	__s32 sync_sock_size;
	__s32 cache_bypass;
	__s32 expire_nodest_conn;
	__s32 sloppy_tcp;
	__s32 sloppy_sctp;
	__s32 expire_quiescent_template;
	__s32 sync_threshold[2];
	__s32 sync_refresh_period;
	__s32 sync_retries;
	__s32 nat_icmp_send;
	__s32 pmtu_disc;
	__s32 backup_only;
	__s32 conn_reuse_mode;
	__s32 schedule_icmp;
	__s32 ignore_tunneled;
	__s32 run_estimation;
	__s32 lblc_expiration;	/* seconds */
	__s32 lblcr_expiration; /* seconds */
	/* FULLNAT's and SYNPROXY's, which the kernel's IPVS has not. */
	__s32 toa_kind;	      /* TCP option that tells the client's address */
	__s32 local_port_low; /* ports of local addresses, both inclusive */
	__s32 local_port_high;
	__s32 expire_reset;	/* established connections whose time is up: both ends are reset */
	__s32 synproxy_rate;	/* automatic: SYNs a second of a service */
	__s32 synproxy_defer;	/* wait for payload before the real server is asked */
	__s32 synproxy_retries; /* of the SYN to the real server */
	__s32 synproxy_half_open; /* connections that wait for one real server's SYN-ACK */
	__s32 synproxy_mss;	  /* said to clients; 0: as the servers do */
	__s32 synproxy_wscale;	  /* the same; -1: as the servers do */
	__s32 synproxy_sack;
	__s32 synproxy_timestamp;
	__s32 tcp_drop_entry;  /* TCP for a service, but of no connection, is dropped */
	__s32 udp_drop_entry;  /* UDP for a service's address, but of no service, is dropped */
	__s32 frag_drop_entry; /* fragments for a service's address are dropped */
	__s32 reserved[3];
};

/* A synchronisation daemon (ipvsadm --start-daemon): user space's notes. */
struct xlvs_sync_daemon {
	__u8 interface[16];
	__u8 group[16];
	__u16 family; /* the group's; 0: this daemon does not run */
	__u16 maxlen; /* bytes of a message */
	__u16 port;
	__u8 syncid;
	__u8 ttl;
};

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
	__u32 rules_version;	/* raised by every change of the rules */
	__u32 generation;	/* of the programs, raised by every `up` */
	__u32 tcp_seconds[3];	/* ipvsadm --set: tcp, tcpfin, udp, as entered */
	__u32 slots;		/* table size asked for, kept while the plane is down */
	__u32 sctp_timeout[16]; /* by state, jiffies */
	/* What the helper decided on (update_defense_level of ip_vs_ctl.c). */
	__u32 drop_rate; /* of packets that would make a connection one in so many is dropped; 0: none */
	__s32 drop_counter;  /* counts down to the next such drop */
	__u32 drop_entries;  /* not 0: the timer ends half-open connections at random */
	__u32 secure_states; /* not 0: TCP's states by secure_tcp's table */
	__u32 buckets_next;
	__u32 marks_next;	/* where to look for free rows of mark_rules next */
	__u32 helper_seen;	/* its last sign of life, jiffies; 0: it does not run */
	__u32 localities_due;	/* jiffies of the next look at what lblc and lblcr may forget */
	__u32 localities_round; /* looks so far */
	__u32 expected;		/* connections whose client's port is not known yet */
	__u32 helper_dropped;	/* frames that the helper gave up */
	__u32 hop_fresh;	/* jiffies for which a next hop is believed */
	__u32 locals_next;
	__u32 unreset;	     /* connections that time ended, and nobody told their ends */
	__u32 cookie_key[4]; /* secret of SYNPROXY's cookies */
	__u32 pad2[3];
	struct xlvs_sysctl sysctl;
	struct xlvs_sync_daemon daemons[2]; /* master, backup */
};

#endif
