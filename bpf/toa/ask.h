/* SPDX-License-Identifier: GPL-2.0 */
/* What programs are told: getpeername and accept without their doing, getsockopt if they ask. */
#ifndef XLVS_TOA_ASK_H
#define XLVS_TOA_ASK_H

#include "state.h"

/* Of our own, beyond every level of linux/socket.h; docs/toa.md has them. */
#define TOA_LEVEL 0x786c /* "xl" */
#define TOA_PEER  1

#define LONGEST_OPTION 4096 /* a page: of longer ones programs see no more (linux/bpf.h) */

/* The client of a socket whose kernel takes `seen` for the peer; NULL: none was told. */
static __always_inline struct end *client_of_socket(struct bpf_sock_addr *ctx,
						    const struct end *seen)
{
	struct held *held = bpf_sk_storage_get(&peers, ctx->sk, 0, 0);

	if (!held || !held->peer.client.family || !same_end(&held->peer.seen, seen))
		return 0;
	return &held->peer.client;
}

static __always_inline void told_end4(struct bpf_sock_addr *ctx, struct end *end)
{
	end4(end, ctx->user_ip4, ctx->user_port);
}

static __always_inline void told_end6(struct bpf_sock_addr *ctx, struct end *end)
{
	end6(end, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3],
	     ctx->user_port);
}

/* Into an AF_INET address; an IPv6 one does not fit. */
static __always_inline void tell4(struct bpf_sock_addr *ctx, const struct end *end)
{
	if (!end || end->family != IPV4)
		return;
	ctx->user_ip4 = end->address[0];
	ctx->user_port = end->port;
}

/* Into an AF_INET6 address: IPv4 is mapped. */
static __always_inline void tell6(struct bpf_sock_addr *ctx, const struct end *end)
{
	bool mapped;

	if (!end)
		return;
	mapped = end->family == IPV4;
	ctx->user_ip6[0] = mapped ? 0 : end->address[0];
	ctx->user_ip6[1] = mapped ? 0 : end->address[1];
	ctx->user_ip6[2] = mapped ? bpf_htonl(0xffff) : end->address[2];
	ctx->user_ip6[3] = mapped ? end->address[0] : end->address[3];
	ctx->user_port = end->port;
}

/* getsockopt(TOA_LEVEL, TOA_PEER): both ends; without a client it stays unknown (ENOPROTOOPT). */
static __always_inline void answer_option(struct bpf_sockopt *ctx)
{
	struct peer *place = ctx->optval;
	struct held *held;

	if (ctx->level != TOA_LEVEL || ctx->optname != TOA_PEER) {
		if (ctx->optlen > LONGEST_OPTION)
			ctx->optlen = 0; /* else it fails, though nobody changed it */
		return;
	}
	held = ctx->sk ? bpf_sk_storage_get(&peers, ctx->sk, 0, 0) : 0;
	if (!held || !held->peer.client.family || (void *)(place + 1) > ctx->optval_end)
		return;
	*place = held->peer;
	ctx->optlen = sizeof(*place);
	asm volatile("" ::: "memory"); /* no context takes both fields in one store */
	ctx->retval = 0;
}

#endif
