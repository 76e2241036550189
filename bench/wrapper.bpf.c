/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The scales: BPF_PROG_TEST_RUN does not restore the packet between repetitions, so
 * this program does, and then goes on to the program on the scales. Around an empty
 * program it weighs itself.
 */
#include "frame.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} weighed SEC(".maps");

SEC("xdp")
int weigh(struct xdp_md *ctx)
{
	struct frames *f = frames_get();
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 length = end - data;

	if (!f)
		return XDP_ABORTED;
	asm volatile("" : "+r"(length)); /* or clang subtracts in an order that no verifier takes */
	/* Called always, so that a program that grows the packet does not pay for its restoring. */
	if (bpf_xdp_adjust_head(ctx, (int)length - (int)f->size) || frame_write(ctx, f))
		return XDP_ABORTED;
	bpf_tail_call(ctx, &weighed, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int empty(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
