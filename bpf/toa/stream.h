/* SPDX-License-Identifier: GPL-2.0 */
/* TCP: the option is read in the segment that completes the handshake, or in one of the next. */
#ifndef XLVS_TOA_STREAM_H
#define XLVS_TOA_STREAM_H

#include <linux/tcp.h>

#include "state.h"

#define MOST_OPTIONS 40 /* bytes: no header has more options than that */
/*
 * A connection whose first segment tells nothing (TCP Fast Open is established by its SYN)
 * is watched for so many segments more.
 */
#define WATCHED_SEGMENTS 8

/*
 * A 0 that the verifier cannot know. What is combined with it in a loop looks the same to it in
 * each round however it came about, so it walks each round once.
 */
static __always_inline __u32 unknown_zero(void)
{
	__u32 some = bpf_get_prandom_u32(), same = some;

	asm volatile("" : "+r"(same));
	return some ^ same;
}

/*
 * Where the first option of one of our kinds begins that tells a client, in the header that
 * `ops` shows; 0: there is none, negative: the options are broken. Those of another length are
 * somebody else's (kind 254 is for experiments, RFC 4727). A global function: verified once.
 * Its notes stand on the stack, for it may be interrupted by itself, which a CPU's scratch would
 * not survive: hence a plain loop.
 */
__noinline int find_option(struct bpf_sock_ops *ops)
{
	__u8 *data = ops->skb_data, *end = ops->skb_data_end;
	struct notes *notes = notes_get();
	__u32 at = sizeof(struct tcphdr);
	__u32 nothing = unknown_zero();

	if (!notes)
		return 0;
	for (int i = 0; i < MOST_OPTIONS; i++) {
		__u8 *option = data + ((at ^ nothing) & 63);
		__u32 length;

		if (option + 1 > end || *option == 0 /* end of list */)
			return 0;
		if (*option == 1) { /* no operation */
			at++;
			continue;
		}
		if (option + 2 > end || option[1] < 2)
			return -1;
		length = option[1];
		if (option + length > end)
			return -1;
		if (notes->kinds[*option] && (length == 2 + TOLD4 || length == 2 + TOLD6))
			return at & 63;
		at = (at ^ nothing) & 63;
		at += length;
		if (at >= sizeof(struct tcphdr) + MOST_OPTIONS)
			return 0;
	}
	return 0;
}

/* Read the option that tells the client, if there is one. */
static __always_inline enum found find_client(struct bpf_sock_ops *ops, struct end *client)
{
	int found = find_option(ops);
	__u8 *data = ops->skb_data, *end = ops->skb_data_end;
	__u8 *option = data + (found & 63);

	if (found < 0)
		return BROKEN;
	if (!found || option + 2 > end)
		return NOTHING;
	if (option[1] == 2 + TOLD4 && option + 2 + TOLD4 <= end) {
		read_told(option + 2, TOLD4, client);
		return CLIENT;
	}
	if (option[1] == 2 + TOLD6 && option + 2 + TOLD6 <= end) {
		read_told(option + 2, TOLD6, client);
		return CLIENT;
	}
	return NOTHING;
}

static __always_inline void remote_end(struct bpf_sock_ops *ops, struct end *end)
{
	__be16 port = ops->remote_port >> 16;

	if (ops->family == IPV4)
		end4(end, ops->remote_ip4, port);
	else
		end6(end, ops->remote_ip6[0], ops->remote_ip6[1], ops->remote_ip6[2],
		     ops->remote_ip6[3], port);
}

/* Have headers shown to us, or no longer; what other programs of the socket asked for stays. */
static __always_inline void watch(struct bpf_sock_ops *ops, struct held *held, bool on)
{
	__u32 flags = ops->bpf_sock_ops_cb_flags;
	bool shown = flags & BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG;

	if (on ? shown : !held->watched)
		return;
	held->watched = on;
	bpf_sock_ops_cb_flags_set(ops, flags ^ BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
}

/* Look for the option in the segment that is being received. */
static __always_inline enum found learn(struct bpf_sock_ops *ops, struct end *client)
{
	enum found found = find_client(ops, client);

	if (found == BROKEN)
		count(MALFORMED);
	return found;
}

static __always_inline void keep(struct held *held, const struct end *client,
				 const struct end *seen)
{
	held->peer.client = *client;
	held->peer.seen = *seen;
	count(CONNECTIONS);
}

static __always_inline void stream_begins(struct bpf_sock_ops *ops)
{
	struct end client = {}, seen = {};
	struct bpf_sock *sk = ops->sk;
	enum found found = learn(ops, &client);
	struct held *held;

	remote_end(ops, &seen);
	if (!sk)
		return;
	if (!is_believed(&seen)) {
		if (found == CLIENT)
			count(FOREIGN);
		return;
	}
	held = bpf_sk_storage_get(&peers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held)
		return;
	if (found == CLIENT)
		keep(held, &client, &seen);
	else
		watch(ops, held, true);
}

/* A later segment of a connection that is watched, by us or by another program. */
static __always_inline void stream_goes_on(struct bpf_sock_ops *ops)
{
	struct end client = {}, seen = {};
	struct bpf_sock *sk = ops->sk;
	struct held *held;

	if (!sk)
		return;
	held = bpf_sk_storage_get(&peers, sk, 0, 0);
	if (!held || held->peer.client.family) /* not believed, or told already */
		return;
	if (learn(ops, &client) == CLIENT) {
		remote_end(ops, &seen);
		keep(held, &client, &seen);
		watch(ops, held, false);
	} else if (ops->segs_in > WATCHED_SEGMENTS) {
		watch(ops, held, false);
	}
}

#endif
