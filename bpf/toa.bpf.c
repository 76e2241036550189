/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The real server's side of FULLNAT: the director's local address is the peer of every
 * connection; options from the director tell the client's. Programs of a cgroup, so that every
 * socket in it shows the client to programs that know nothing of this.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "toa/ask.h"
#include "toa/datagram.h"
#include "toa/stream.h"

SEC("sockops")
int toa_stream(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		stream_begins(ops);
	else if (ops->op == BPF_SOCK_OPS_PARSE_HDR_OPT_CB)
		stream_goes_on(ops);
	return 1;
}

/* accept() goes by here, too. */
SEC("cgroup/getpeername4")
int toa_getpeername4(struct bpf_sock_addr *ctx)
{
	struct end seen;

	told_end4(ctx, &seen);
	tell4(ctx, client_of_socket(ctx, &seen));
	return 1;
}

SEC("cgroup/getpeername6")
int toa_getpeername6(struct bpf_sock_addr *ctx)
{
	struct end seen;

	told_end6(ctx, &seen);
	tell6(ctx, client_of_socket(ctx, &seen));
	return 1;
}

SEC("cgroup/getsockopt")
int toa_getsockopt(struct bpf_sockopt *ctx)
{
	answer_option(ctx);
	return 1;
}

SEC("cgroup_skb/ingress")
int toa_arrive(struct __sk_buff *skb)
{
	arrive(skb);
	return 1;
}

SEC("cgroup/recvmsg4")
int toa_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct end seen;

	told_end4(ctx, &seen);
	tell4(ctx, show(ctx, &seen));
	return 1;
}

SEC("cgroup/recvmsg6")
int toa_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct end seen;

	told_end6(ctx, &seen);
	tell6(ctx, show(ctx, &seen));
	return 1;
}

SEC("cgroup/sendmsg4")
int toa_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct end client;

	told_end4(ctx, &client);
	tell4(ctx, turn_back(ctx, &client));
	return 1;
}

SEC("cgroup/sendmsg6")
int toa_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct end client;

	told_end6(ctx, &client);
	tell6(ctx, turn_back(ctx, &client));
	return 1;
}

SEC("cgroup/connect4")
int toa_connect4(struct bpf_sock_addr *ctx)
{
	struct end client;

	told_end4(ctx, &client);
	tell4(ctx, connect_back(ctx, &client));
	return 1;
}

SEC("cgroup/connect6")
int toa_connect6(struct bpf_sock_addr *ctx)
{
	struct end client;

	told_end6(ctx, &client);
	tell6(ctx, connect_back(ctx, &client));
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
