/* SPDX-License-Identifier: GPL-2.0 */
/* What the real server's programs know: whom to believe, and who is behind which peer. */
#ifndef XLVS_TOA_STATE_H
#define XLVS_TOA_STATE_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4 2 /* AF_INET and AF_INET6, which no UAPI header has */
#define IPV6 10

#define PREFIXES    4096
#define FLOWS	    65536 /* UDP clients remembered at a time, the least used go first */
#define CGROUP_PATH 1024

/*
 * An address and port of either family; docs/toa.md shows this struct and struct peer to
 * programs. An IPv4 address lies in the first word, the rest is 0; IPv4 mapped into IPv6 is
 * IPv4 here.
 */
struct end {
	__u16 family;
	__be16 port;
	__be32 address[4];
};

struct peer {
	struct end client;
	struct end seen; /* whom the kernel takes for the peer: the director's local address */
};

/* Indexes of `counters`; src/xlvs/realserver/toa.py has the same names in the same order. */
enum counter {
	CONNECTIONS,	/* TCP connections whose client was told */
	DATAGRAM_FLOWS, /* UDP clients learnt */
	FOREIGN,	/* a client told by somebody outside the prefixes: not believed */
	MALFORMED,	/* options that break the rules, or of a length that tells no client */
	COUNTERS,
};

struct notes {
	__u8 kinds[256];	  /* TCP options to read: not 0 */
	char cgroup[CGROUP_PATH]; /* user space's note of the path it was attached at */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct notes);
} settings SEC(".maps");

struct prefix {
	__u32 bits; /* 32 more than of the address */
	__u32 family;
	__be32 address[4];
};

/* Whose options are believed. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PREFIXES);
	__type(key, struct prefix);
	__type(value, __u8);
} from SEC(".maps");

/* What is kept with a socket; the client's family is 0 where none was told. */
struct held {
	struct peer peer;
	__u32 watched; /* headers are shown to us because we asked */
};

/* Of TCP sockets, and of UDP sockets that were connected to a client. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct held);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(enum counter which)
{
	__u32 index = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &index);

	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline struct notes *notes_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline void end4(struct end *end, __be32 address, __be16 port)
{
	__builtin_memset(end, 0, sizeof(*end));
	end->family = IPV4;
	end->port = port;
	end->address[0] = address;
}

/* IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2) is IPv4. */
static __always_inline void end6(struct end *end, __be32 a, __be32 b, __be32 c, __be32 d,
				 __be16 port)
{
	if (!a && !b && c == bpf_htonl(0xffff)) {
		end4(end, d, port);
		return;
	}
	end->family = IPV6;
	end->port = port;
	end->address[0] = a;
	end->address[1] = b;
	end->address[2] = c;
	end->address[3] = d;
}

static __always_inline bool same_end(const struct end *a, const struct end *b)
{
	return a->family == b->family && a->port == b->port && a->address[0] == b->address[0] &&
	       a->address[1] == b->address[1] && a->address[2] == b->address[2] &&
	       a->address[3] == b->address[3];
}

static __always_inline bool is_believed(const struct end *end)
{
	struct prefix key = { .bits = 32 + 128, .family = end->family };

	if (end->family == IPV4)
		key.bits = 32 + 32;
	__builtin_memcpy(key.address, end->address, sizeof(key.address));
	return bpf_map_lookup_elem(&from, &key);
}

/* What a walk over options came to. */
enum found { NOTHING, CLIENT, BROKEN };

/* What follows the kind and length of an option in either transport: port and address. */
#define TOLD4 6
#define TOLD6 18

static __always_inline void read_told(const __u8 *told, __u32 size, struct end *client)
{
	__be32 word[4] = {};

	__builtin_memcpy(word, told + 2, 4);
	if (size == TOLD4) {
		end4(client, word[0], *(__be16 *)told);
		return;
	}
	__builtin_memcpy(&word[1], told + 6, 12);
	end6(client, word[0], word[1], word[2], word[3], *(__be16 *)told);
}

#endif
