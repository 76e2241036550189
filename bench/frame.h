/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Frames that the benchmarks send: written whole each time, because a frame comes back
 * as its last receiver left it. Either one of 64 ready ones in turn, or one whose
 * client is another each time.
 */
#ifndef BENCH_FRAME_H
#define BENCH_FRAME_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME_SIZE  64 /* room for one; shorter frames are shorter in the packet */
#define FRAMES	    64
#define CLIENT_BITS 17 /* of the new flows: 198.18.0.0/15 */
#define PORT_BITS   14

struct frames {
	__u32 ifindex; /* where to send them */
	__u32 fresh;   /* each frame begins a new flow */
	__u32 size;
	__u32 next;
	__u32 ip_sum; /* sums of the frame without client address and port */
	__u32 l4_sum;
	__u32 check_at; /* of the transport checksum */
	__u32 first;	/* number of the first one */
	__u64 begun;	/* when that was sent, nanoseconds */
	__u64 stamp;	/* when number `stamped` was */
	__u32 stamped;
	__u32 pad;
	__u8 frame[FRAMES][FRAME_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct frames);
} frames SEC(".maps");

static __always_inline struct frames *frames_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&frames, &zero);
}

#define STAMP_EVERY 1024 /* reading the clock costs as much as half a frame */

/* Note the time now and then: what a call does before and after its packets is not in it. */
static __always_inline void frame_stamp(struct frames *f)
{
	if (f->next != f->first && f->next & (STAMP_EVERY - 1))
		return;
	f->stamp = bpf_ktime_get_ns();
	f->stamped = f->next;
	if (f->next == f->first)
		f->begun = f->stamp;
}

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(__u16)sum;
}

/* Another client: address and port counted up, both checksums made right. */
static __always_inline void renew(__u8 *data, const struct frames *f, __u32 number)
{
	__u32 address = bpf_htonl(0xc6120000 | (number & ((1 << CLIENT_BITS) - 1)));
	__u16 port = bpf_htons(1024 + (number >> CLIENT_BITS & ((1 << PORT_BITS) - 1)));
	__u32 sum = (address & 0xffff) + (address >> 16);

	*(__u16 *)(data + 24) = folded(f->ip_sum + sum);
	*(__u32 *)(data + 26) = address;
	*(__u16 *)(data + 34) = port;
	if (f->check_at == 50) /* TCP */
		*(__u16 *)(data + 50) = folded(f->l4_sum + sum + port);
	else
		*(__u16 *)(data + 40) = folded(f->l4_sum + sum + port);
}

/* Write the next frame over the packet's first FRAME_SIZE bytes, or as many as it has. */
static __always_inline int frame_write(struct xdp_md *ctx, struct frames *f)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 number = f->next++;

	if (data + 60 > end)
		return -1;
	__builtin_memcpy(data, f->frame[number & (FRAMES - 1)], 60);
	if (f->fresh)
		renew(data, f, number);
	return 0;
}

#endif
