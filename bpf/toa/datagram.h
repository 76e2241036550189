/* SPDX-License-Identifier: GPL-2.0 */
/*
 * UDP: datagrams of a client come from the director's local address; an IP option in the first
 * of them, and again every second, tells whose they are. Every datagram passes `arrive` on the
 * very socket that will receive it. What that learns is what receiving shows (`show`), and what
 * was shown is turned back where it is sent or connected to (`turn_back`). Headers are left as
 * they are, so routes, filters and the reverse path see the director only.
 */
#ifndef XLVS_TOA_DATAGRAM_H
#define XLVS_TOA_DATAGRAM_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "state.h"

#define UOA_IPV4     31 /* IPv4 option, as DPVS has it: kind, length, port, address */
#define UOA_IPV6     31 /* option in an IPv6 destination options header: the same */
#define MOST_HEADERS 4	/* IPv6 extension headers in front of the datagram that are read */
#define MOST_READ    40 /* options, or single bytes of padding, of one header */
#define SECOND	     1000000000ull
/*
 * Silence after which a flow is nobody's: the datagram that ends it tells its client itself. Far
 * below IPVS's UDP timeout, after which the local port may be another client's.
 */
#define FLOW_LIFETIME (30 * SECOND)

struct flow {
	struct end local;
	struct end remote; /* the director's */
};

struct flow_client {
	struct end client;
	__u32 pad;
	__u64 seen; /* ns, to within a second */
};

/* A remote end, at one socket. */
struct arrival {
	__u64 socket; /* cookie */
	struct end remote;
	__u32 pad;
};

/* A client, at a port of a network namespace. */
struct shown {
	__u64 namespace; /* cookie */
	struct end client;
	__u16 port; /* host order */
	__u16 pad;
};

#define LRU(map_name, key_type, value_type)          \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_LRU_HASH); \
		__uint(max_entries, FLOWS);          \
		__type(key, key_type);               \
		__type(value, value_type);           \
	} map_name SEC(".maps")

LRU(flows, struct flow, struct flow_client);
LRU(arrivals, struct arrival, struct end); /* its client */
LRU(answers, struct shown, struct end);	   /* where answers to it go */

/*
 * Where the option that tells a client begins, in the options from `at` up to `end`; 0: there
 * is none, negative: they are broken. IPv6's padding of one byte is 0 (RFC 8200, 4.2), IPv4's is
 * 1, and its 0 ends the list (RFC 791, 3.1). IPv6's lengths leave out the two bytes in front.
 * A global function: verified once, though called from loops.
 */
__noinline int walk_options(struct __sk_buff *skb, __u32 at, __u32 end, int ipv6)
{
	__u8 head[2] = {};

	for (int i = 0; i < MOST_READ && at < end; i++) {
		__u32 size;

		if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
			return -1;
		if (head[0] == (ipv6 ? 0 : 1)) {
			at++;
			continue;
		}
		if (!ipv6 && !head[0])
			return 0;
		if (!ipv6 && head[1] < 2)
			return -1;
		size = head[1] - (ipv6 ? 0 : 2);
		if (at + 2 + size > end)
			return -1;
		if (head[0] == (ipv6 ? UOA_IPV6 : UOA_IPV4) && (size == TOLD4 || size == TOLD6))
			return at & 0xffff;
		at += 2 + size;
	}
	return 0;
}

/* Read the option that tells the client, if there is one. */
static __always_inline enum found find_told(struct __sk_buff *skb, __u32 at, __u32 end, bool ipv6,
					    struct end *client)
{
	int place = walk_options(skb, at, end, ipv6);
	__u8 option[2 + TOLD6] = {};
	__u32 size;

	if (place <= 0)
		return place ? BROKEN : NOTHING;
	if (bpf_skb_load_bytes(skb, place, option, 2))
		return BROKEN;
	size = option[1] - (ipv6 ? 0 : 2);
	/* Two calls: 6.1 wants to know how much is written. */
	if (size == TOLD4 ? bpf_skb_load_bytes(skb, place, option, 2 + TOLD4)
			  : bpf_skb_load_bytes(skb, place, option, 2 + TOLD6))
		return BROKEN;
	read_told(option + 2, size, client);
	return CLIENT;
}

/* Where the UDP header is; 0 for other packets. */
static __always_inline __u32 read_ipv4(struct __sk_buff *skb, struct flow *flow, struct end *client,
				       enum found *found)
{
	struct iphdr *ip = (void *)(long)skb->data;
	__u32 header;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end || ip->protocol != IPPROTO_UDP)
		return 0;
	header = ip->ihl * 4;
	end4(&flow->local, ip->daddr, 0);
	end4(&flow->remote, ip->saddr, 0);
	if (header > sizeof(*ip))
		*found = find_told(skb, sizeof(*ip), header, false, client);
	return header;
}

static __always_inline __u32 read_ipv6(struct __sk_buff *skb, struct flow *flow, struct end *client,
				       enum found *found)
{
	struct ipv6hdr *ip = (void *)(long)skb->data;
	__u32 at = sizeof(*ip), size;
	__u8 next, head[2] = {};
	__be32 *word;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end || ip->nexthdr == IPPROTO_TCP)
		return 0;
	word = (__be32 *)&ip->daddr;
	end6(&flow->local, word[0], word[1], word[2], word[3], 0);
	word = (__be32 *)&ip->saddr;
	end6(&flow->remote, word[0], word[1], word[2], word[3], 0);
	next = ip->nexthdr;
	for (int i = 0; i < MOST_HEADERS && next != IPPROTO_UDP; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			return 0;
		if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
			return 0;
		size = 8 + head[1] * 8;
		if (next == IPPROTO_DSTOPTS && *found == NOTHING)
			*found = find_told(skb, at + 2, at + size, true, client);
		next = head[0];
		at += size;
	}
	return next == IPPROTO_UDP ? at : 0;
}

/* Note at the socket that receives it whose datagram this is; not `told`: the sender's own. */
static __always_inline void note_arrival(struct __sk_buff *skb, const struct end *remote, bool told,
					 const struct end *client)
{
	struct arrival key = { .socket = bpf_get_socket_cookie(skb) };
	struct end *noted;

	key.remote = *remote;
	noted = bpf_map_lookup_elem(&arrivals, &key);
	if (told && noted && same_end(noted, client))
		return;
	if (told)
		bpf_map_update_elem(&arrivals, &key, client, BPF_ANY);
	else if (noted)
		bpf_map_delete_elem(&arrivals, &key);
}

/* The client of a flow, by the datagram's option or by an earlier one's. */
static __always_inline bool client_of(const struct flow *flow, enum found found, struct end *client)
{
	struct flow_client *known = bpf_map_lookup_elem(&flows, flow), new = {};
	__u64 now = bpf_ktime_get_ns();

	if (known && (found != CLIENT || same_end(&known->client, client))) {
		if (found != CLIENT && now - known->seen > FLOW_LIFETIME)
			return false;
		if (now - known->seen > SECOND)
			known->seen = now;
		*client = known->client;
		return true;
	}
	if (found != CLIENT)
		return false;
	new.client = *client;
	new.seen = now;
	bpf_map_update_elem(&flows, flow, &new, BPF_ANY);
	count(DATAGRAM_FLOWS);
	return true;
}

/* A packet on its way into a socket. */
static __always_inline void arrive(struct __sk_buff *skb)
{
	enum found found = NOTHING;
	struct end client = {};
	struct flow flow = {};
	__be16 ports[2];
	__u32 at = 0;
	bool told;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		at = read_ipv4(skb, &flow, &client, &found);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		at = read_ipv6(skb, &flow, &client, &found);
	if (!at || bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return;
	if (!is_believed(&flow.remote)) {
		if (found == CLIENT)
			count(FOREIGN);
		return;
	}
	if (found == BROKEN)
		count(MALFORMED);
	flow.remote.port = ports[0];
	flow.local.port = ports[1];
	told = client_of(&flow, found, &client);
	note_arrival(skb, &flow.remote, told, &client);
}

/*
 * Whom to show a receiver instead of `seen`; NULL: nobody else. The client must be of the same
 * family: the kernel cannot send from an IPv6 address to an IPv4 one once we turn it back.
 */
static __always_inline struct end *show(struct bpf_sock_addr *ctx, const struct end *seen)
{
	struct arrival arrived = { .socket = bpf_get_socket_cookie(ctx) };
	struct shown key = { .namespace = bpf_get_netns_cookie(ctx) };
	struct end *client, *answer;

	arrived.remote = *seen;
	key.port = ctx->sk->src_port;
	client = bpf_map_lookup_elem(&arrivals, &arrived);
	if (client && client->family != seen->family)
		client = 0;
	key.client = client ? *client : *seen;
	answer = bpf_map_lookup_elem(&answers, &key);
	if (!client && answer) /* it came here itself: it is answered itself */
		bpf_map_delete_elem(&answers, &key);
	if (client && (!answer || !same_end(answer, seen)))
		bpf_map_update_elem(&answers, &key, seen, BPF_ANY);
	return client;
}

/* Where what is for a client that was shown must go; NULL: to itself. */
static __always_inline struct end *turn_back(struct bpf_sock_addr *ctx, const struct end *client)
{
	struct shown key = { .namespace = bpf_get_netns_cookie(ctx) };

	key.client = *client;
	key.port = ctx->sk->src_port;
	return bpf_map_lookup_elem(&answers, &key);
}

/* The same where a UDP socket is connected, which remembers its client. */
static __always_inline struct end *connect_back(struct bpf_sock_addr *ctx, const struct end *client)
{
	struct bpf_sock *sk = ctx->sk;
	struct end *answer;
	struct held *held;

	if (ctx->protocol != IPPROTO_UDP)
		return 0;
	answer = turn_back(ctx, client);
	if (!answer) {
		bpf_sk_storage_delete(&peers, sk);
		return 0;
	}
	held = bpf_sk_storage_get(&peers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (held) {
		held->peer.client = *client;
		held->peer.seen = *answer;
	}
	return answer;
}

#endif
