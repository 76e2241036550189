/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps are the database: user space changes the rules in place, the programs
 * own the connections. Arrays are mmapable, so that user space reads them without
 * system calls; sizes marked 1 are set when the object is opened.
 */
#ifndef XLVS_MAPS_H
#define XLVS_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "ftp_state.h"
#include "option_state.h"
#include "parse.h"
#include "schedule/state.h"
#include "sip_state.h"

#define NOBODY 0xffffffffu /* no row: no service, no destination */

#define MMAPABLE_ARRAY(map_name, value_type, entries) \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_ARRAY);     \
		__uint(map_flags, BPF_F_MMAPABLE);    \
		__uint(max_entries, entries);         \
		__type(key, __u32);                   \
		__type(value, value_type);            \
	} map_name SEC(".maps")

#define LRU_HASH(map_name, key_type, value_type, entries) \
	struct {                                          \
		__uint(type, BPF_MAP_TYPE_LRU_HASH);      \
		__uint(max_entries, entries);             \
		__type(key, key_type);                    \
		__type(value, value_type);                \
	} map_name SEC(".maps")

#define HASH(map_name, key_type, value_type, entries) \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_HASH);      \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__uint(max_entries, entries);         \
		__type(key, key_type);                \
		__type(value, value_type);            \
	} map_name SEC(".maps")

/* Rules. */
MMAPABLE_ARRAY(settings, struct xlvs_settings, 1);
MMAPABLE_ARRAY(services, struct xlvs_service, XLVS_SERVICES);
MMAPABLE_ARRAY(dests, struct xlvs_dest, XLVS_DESTS);
MMAPABLE_ARRAY(members, struct xlvs_member, XLVS_MEMBERS);
MMAPABLE_ARRAY(locals, struct xlvs_local, XLVS_LOCALS);
MMAPABLE_ARRAY(loads, struct xlvs_load, XLVS_DESTS);
MMAPABLE_ARRAY(counters, struct xlvs_counters, 1); /* XLVS_ROWS for each CPU */
MMAPABLE_ARRAY(rates, struct xlvs_rate, XLVS_ROWS);
HASH(service_index, struct xlvs_service_key, __u32, XLVS_SERVICES);
MMAPABLE_ARRAY(buckets, struct xlvs_bucket_pair, XLVS_BUCKETS / 2);
MMAPABLE_ARRAY(mark_rules, struct xlvs_mark_rule, XLVS_MARK_RULES);
HASH(addresses, struct xlvs_service_key, __u32, XLVS_ADDRESSES);
HASH(ports, __u32, struct xlvs_port, XLVS_PORTS);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, XLVS_MARK_PREFIXES);
	__type(key, struct xlvs_mark_prefix);
	__type(value, __u64);
} mark_prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, XLVS_CLIENTS);
	__type(key, struct xlvs_client_prefix);
	__type(value, struct xlvs_client);
} clients SEC(".maps");

/* Connections. */
MMAPABLE_ARRAY(conns, struct xlvs_conn, 1);
HASH(conn_index4, struct xlvs_key4, __u32, 1);
HASH(conn_index6, struct xlvs_key6, __u32, 1);
HASH(localities, struct xlvs_locality_key, struct xlvs_locality, XLVS_LOCALITIES);
LRU_HASH(datagrams, struct xlvs_datagram_key, struct xlvs_datagram, XLVS_DATAGRAMS);
LRU_HASH(waiting, struct xlvs_datagram_key, __u32, XLVS_WAITING);
LRU_HASH(sources, struct xlvs_source, __u64, XLVS_SOURCES);
LRU_HASH(path_mtus, __u8[16], struct xlvs_path_mtu, XLVS_PATHS);
HASH(engine_data, __u32, struct xlvs_engine_data, 1 << 16);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XLVS_OUTCOME_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

/* What a new connection or template begins with. */
struct birth {
	struct xlvs_key6 tuple; /* its request's key */
	__u8 client[16];	/* differs from the key's in templates of an engine */
	__u32 dest;		/* row, NOBODY for none */
	__u32 flags;
	__u32 timeout;
	__u32 fwmark;
	__u64 engine_hash; /* of a template's persistence engine */
	/* The template it hangs on, its phase; 0: none. */
	__u32 template_slot;
	__u32 template_phase;
	__u32 slot; /* where it was put */
	__be16 dport;
	__u8 family;
	/* By FTP: its server may be at another address than the destination's. */
	__u8 announced;
	__u8 server[16];
	__u32 older;
	__u32 sequence; /* of the client's SYN */
};

/* The search for a free port of a local address (local.h). */
struct local_walk {
	__u32 low; /* first port of the range, and how many it has */
	__u32 range;
	__u32 at; /* the next one to be tried */
	__u32 stride;
	__u32 ref; /* what its key is to name, */
	__u32 family;
	__u32 found; /* and whether it does */
	__u32 turn;  /* addresses taken so far */
	__u32 dry;   /* jiffies when none was found last */
};

#define DRAFT_OPTIONS 5

/* A TCP segment that the director makes itself. */
struct draft {
	__u8 saddr[16] __attribute__((aligned(8))); /* copied as words */
	__u8 daddr[16];
	__be16 sport;
	__be16 dport;
	__u32 sequence;
	__u32 acknowledged;
	__u16 window;
	__u8 flags;
	__u8 words; /* of its options */
	__be32 options[DRAFT_OPTIONS];
};

#define ANSWER_WORDS 16 /* a power of two, more than it takes */

#define OFFER_TEXT 64 /* a power of two, more than TCP's options take */

/* The reader of a SYN's options. */
struct offer_walk {
	__u32 at;
	__u32 length;
	__u32 offer;
	__u32 stamp; /* its sender's, where it has timestamps, and */
	__u32 echo;  /* what that echoes */
	__u8 text[OFFER_TEXT + 12];
};

/* What a good cookie says of the connection that is to be made. */
struct cookie_note {
	bool good;
	__u16 window; /* the client's */
	__u32 cookie;
	__u32 isn;   /* the client's */
	__u32 offer; /* conn.older */
	__u32 stamp; /* the client's, where it has timestamps, and */
	__u32 told;  /* the director's, echoed */
};

#define PAYLOAD_SIZE 2048 /* powers of two */
#define HEADERS_SIZE 256
#define MADE_SIZE    32

/* What one program leaves for the next across a tail call, and the ICMP limit's window. */
struct xlvs_scratch {
	struct bpf_fib_lookup fib; /* too large for the stack of a whole program */
	__u8 tail[64];		   /* last bytes of a checksum, padded */
	struct packet packet;
	struct fragment fragment;
	struct packet about; /* an answer to the packet that an ICMP error quotes */
	struct quote quote;
	struct relay_note relayed;
	__u32 error_quote;    /* offset of what an ICMP error quotes */
	__u32 about_error;    /* it is an ICMP error that is to make a connection */
	struct packet turned; /* the quoted packet itself */
	struct choice choice;
	struct xlvs_event event; /* being written */
	struct {
		struct xlvs_event event;
		struct xlvs_conn conn;
	} expired;
	__u32 next_slot; /* where this CPU looks for a free one first */
	__u32 service;	 /* row of the service it is for, or NOBODY: to be found */
	__u32 mark;	 /* the packet's */
	__u32 again;	 /* tells a packet that comes round again (flow_word) */
	__u32 once;	 /* slot + 1 of the connection made for this packet alone */
	__u32 caller;	 /* row + 1 of the destination that began the conversation */
	__u32 sequence;	 /* the packet's, of TCP */
	__u32 foreign;	 /* routing would take the packet elsewhere, and may (cache_bypass) */
	struct birth birth;
	struct xlvs_key6 other;	  /* a key that may be in its way */
	struct xlvs_key6 removed; /* one that goes */
	struct local_walk local;
	/* Persistence: what the engine read in the packet. */
	__u64 engine_hash;
	struct xlvs_engine_data engine;
	__u8 payload[PAYLOAD_SIZE + 8]; /* of a message that an engine or FTP reads */
	__u8 headers[HEADERS_SIZE];	/* in front of it */
	struct ftp_state ftp;
	struct sip_walk sip;
	__u8 made[MADE_SIZE]; /* what FTP writes instead */
	struct option_edit edit;
	struct xlvs_hop own; /* the link addresses that a packet came with */
	struct xlvs_hop hop; /* of a packet whose way is not kept anywhere */
	__u32 counted_dest;  /* whose packet it is that is too big, */
	__u32 counted_reply; /* and which way it goes */
	__u32 error_mtu;
	__u8 error_source[16];
	__u8 error_type; /* of XLVS_TOLD_CLIENT */
	__u8 error_code;
	__u16 error_routed; /* it leaves by routing, not by where the packet came from */
	__u32 path_mtu;
	struct draft draft;
	struct offer_walk offered;
	__be32 answers[2][ANSWER_WORDS]; /* TCP headers (answer.h) */
	struct cookie_note cookie;
	__u32 unproxied; /* the cookies' program leaves the packet to usual ways */
	__u32 error_outcome;
	__u32 error_dest;   /* destination to count it for, or NOBODY */
	__u32 early_second; /* early fragments given to the helper */
	__u32 early_count;
	__u32 limit_second;
	__u32 limit_count;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xlvs_scratch);
} scratch SEC(".maps");

/* One array a generation: a new one is filled before its entry is attached. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, XLVS_PROGRAMS);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

/* Slots in conns, less one: set for each generation before it is loaded. */
const volatile __u32 conn_mask SEC(".rodata.sizes") = 0;

static __always_inline struct xlvs_settings *settings_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline struct xlvs_scratch *scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline __u32 now(void)
{
	return (__u32)bpf_jiffies64();
}

#endif
