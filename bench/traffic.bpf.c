/* SPDX-License-Identifier: GPL-2.0-only */
/* Both ends of the road, and the shortest one there is. */
#include "frame.h"

/* The generator: run with live frames in the client's namespace. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frames *f = frames_get();

	if (!f)
		return XDP_ABORTED;
	frame_stamp(f);
	if (frame_write(ctx, f))
		return XDP_ABORTED;
	return bpf_redirect(f->ifindex, 0);
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} arrived SEC(".maps");

/* The sink: what comes to the servers is counted, and that is all. */
SEC("xdp")
int sink(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&arrived, &zero);
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + 14 > end || !count)
		return XDP_DROP;
	if (*(__u16 *)(data + 12) != bpf_htons(0x0800))
		return XDP_PASS; /* let the kernels talk */
	*count += 1;
	return XDP_DROP;
}

/* The floor: a director that only moves packets from one interface to the other. */
const volatile __u32 floor_target SEC(".rodata.floor") = 0;

SEC("xdp")
int bare_redirect(struct xdp_md *ctx)
{
	return bpf_redirect(floor_target, 0);
}

char LICENSE[] SEC("license") = "GPL";
